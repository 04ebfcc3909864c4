package record

import (
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/traces"
)

// For tests.
var RemoveLink = removeLink

// MakeFiles makes the files of a recording, of which it returns the one that takes
// the trace, and what removes them.
func MakeFiles(dir, id string) (trace string, remove func() error, err error) {
	f, err := makeFiles(dir, id)
	return f.trace, f.remove, err
}

// WithTrace returns manifest and config of the image that has them, with a trace
// layer.
func WithTrace(manifest, config []byte, layer ocispec.Descriptor) (newManifest, newConfig []byte, err error) {
	d, err := parseDocuments(manifest, config)
	if err != nil {
		return nil, nil, err
	}
	added, err := traces.Add(d.manifest, d.config, layer, time.Unix(1, 0).UTC())
	return added.Manifest, added.Config, err
}

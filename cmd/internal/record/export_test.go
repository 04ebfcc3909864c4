package record

import (
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// For tests.
var RemoveLink = removeLink

// WithTrace returns manifest and config of the image that has them, with a trace
// layer.
func WithTrace(manifest, config []byte, layer ocispec.Descriptor) (newManifest, newConfig []byte, err error) {
	d, err := parseDocuments(manifest, config)
	if err != nil {
		return nil, nil, err
	}
	t, err := d.withTrace(layer, time.Unix(1, 0).UTC())
	if err != nil {
		return nil, nil, err
	}
	newConfig, desc, err := t.configText()
	if err != nil {
		return nil, nil, err
	}
	newManifest, err = t.manifestText(desc)
	return newManifest, newConfig, err
}

package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// documents are manifest and config of an image. What is not known of them stays
// as it is.
type documents struct {
	manifest, config map[string]json.RawMessage

	parsed  ocispec.Manifest
	layers  []json.RawMessage // of the manifest
	diffIDs []digest.Digest   // one for each layer
	history []json.RawMessage
	// replaced says that trace layers were taken off.
	replaced bool
}

// parseDocuments parses what is left of an image without a trace.
func parseDocuments(manifest, config []byte) (*documents, error) {
	dropped, err := traces.Drop(manifest, config)
	if err != nil {
		return nil, fmt.Errorf("taking off the trace: %w", err)
	}
	manifest, config = dropped.Manifest, dropped.Config
	d := &documents{replaced: len(dropped.Layers) > 0}
	var image struct {
		RootFS  ocispec.RootFS    `json:"rootfs"`
		History []json.RawMessage `json:"history"`
	}
	var m struct {
		Layers []json.RawMessage `json:"layers"`
	}
	for _, p := range []struct {
		name string
		text []byte
		to   any
	}{
		{"manifest", manifest, &d.manifest},
		{"manifest", manifest, &d.parsed},
		{"manifest", manifest, &m},
		{"config", config, &d.config},
		{"config", config, &image},
	} {
		if err := json.Unmarshal(p.text, p.to); err != nil {
			return nil, fmt.Errorf("parsing the %s: %w", p.name, err)
		}
	}
	d.layers, d.diffIDs, d.history = m.Layers, image.RootFS.DiffIDs, image.History
	return d, d.check()
}

// check reports what is no image that can have a trace.
func (d *documents) check() error {
	if len(d.parsed.Layers) != len(d.diffIDs) {
		return fmt.Errorf("the manifest has %d layers, the config %d diff IDs", len(d.parsed.Layers), len(d.diffIDs))
	}
	if len(d.diffIDs) == 0 {
		return errors.New("the image has no layers")
	}
	for i, l := range d.parsed.Layers {
		switch {
		case !images.IsLayerType(l.MediaType):
			return fmt.Errorf("layer %d is a %q", i, l.MediaType)
		case l.Annotations[labels.BlobDigest] == "":
			return fmt.Errorf("layer %d (%s) is no overlaybd layer, so nothing of it is read lazily: convert the image first, see reprise convert", i, l.Digest)
		case d.diffIDs[i].Validate() != nil:
			return fmt.Errorf("diff ID %q of layer %d is no digest", d.diffIDs[i], i)
		}
	}
	return nil
}

// chain returns the chain IDs of the layers, bottom first.
func (d *documents) chain() []digest.Digest {
	return identity.ChainIDs(slices.Clone(d.diffIDs))
}

// fsType returns the label about the file system of the topmost layer.
func (d *documents) fsType() string {
	return d.parsed.Layers[len(d.parsed.Layers)-1].Annotations[labels.FSType]
}

// withTrace returns the image with a trace layer on top.
func (d *documents) withTrace(layer ocispec.Descriptor, now time.Time) (*traced, error) {
	text, err := json.Marshal(layer)
	if err != nil {
		return nil, err
	}
	t := &traced{
		manifest: maps.Clone(d.manifest), config: maps.Clone(d.config), configDesc: d.parsed.Config,
		layers:  append(slices.Clone(d.layers), text),
		diffIDs: append(slices.Clone(d.diffIDs), layer.Digest), // it is not compressed
	}
	// Upstream puts its entry before all others, where it says that the
	// bottom layer is the trace. OCI's history is in the order of the layers.
	// An image without history stays so: one entry would be that of layer 0.
	if len(d.history) > 0 {
		entry, err := json.Marshal(ocispec.History{Created: &now, CreatedBy: traces.HistoryComment})
		if err != nil {
			return nil, err
		}
		if err := set(t.config, "history", append(slices.Clone(d.history), entry)); err != nil {
			return nil, err
		}
	}
	return t, errors.Join(
		set(t.config, "created", now),
		set(t.config, "rootfs", ocispec.RootFS{Type: "layers", DiffIDs: t.diffIDs}),
	)
}

// traced is an image with a trace, on its way.
type traced struct {
	manifest, config map[string]json.RawMessage
	configDesc       ocispec.Descriptor // the old one
	layers           []json.RawMessage
	diffIDs          []digest.Digest
}

// configText returns the config.
func (t *traced) configText() ([]byte, ocispec.Descriptor, error) {
	text, err := json.Marshal(t.config)
	desc := t.configDesc
	desc.Digest, desc.Size, desc.Data = digest.FromBytes(text), int64(len(text)), nil
	return text, desc, err
}

// manifestText returns the manifest. It refers to nothing that the old one
// referred to: it has a name of its own, and the list of the subject's referrers
// is who looks for a converted image.
func (t *traced) manifestText(config ocispec.Descriptor) ([]byte, error) {
	if lookup(t.manifest, "subject") {
		unset(t.manifest, "subject")
		unset(t.manifest, "artifactType")
	}
	if err := errors.Join(set(t.manifest, "config", config), set(t.manifest, "layers", t.layers)); err != nil {
		return nil, err
	}
	return json.Marshal(t.manifest)
}

// set sets a key. Go's parser, which most readers use, takes other cases of it
// for the same.
func set(m map[string]json.RawMessage, key string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	unset(m, key)
	m[key] = text
	return nil
}

func unset(m map[string]json.RawMessage, key string) {
	maps.DeleteFunc(m, func(k string, _ json.RawMessage) bool { return strings.EqualFold(k, key) })
}

func lookup(m map[string]json.RawMessage, key string) bool {
	for k := range m {
		if strings.EqualFold(k, key) {
			return true
		}
	}
	return false
}

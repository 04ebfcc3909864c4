package traces

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// createdBefore is the annotation of a trace layer with what the config said,
// before there was the layer, of when the image was created: the JSON text, so that
// Drop can put it back.
const createdBefore = "dev.reprise.trace.created-before"

// maxCreated bounds that text in bytes.
const maxCreated = 64

// Added is an image with a trace layer on top.
type Added struct {
	// Manifest and Config are the texts of both.
	Manifest, Config []byte
	// Parsed is what is in Manifest, and DiffIDs are those in Config.
	Parsed  ocispec.Manifest
	DiffIDs []digest.Digest
}

// Add puts a trace layer, which is not compressed, on top of an image without one,
// which manifest and config are the texts of. It is an image of its own, created
// now. So it is no referrer of what the other one refers to: whoever looks for a
// converted image would find both. Nothing else in the texts changes, and Drop
// makes the same of it again, but for the reference.
func Add(manifest, config []byte, layer ocispec.Descriptor, now time.Time) (Added, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return Added{}, fmt.Errorf("parsing the manifest: %w", err)
	}
	var c layered
	if err := json.Unmarshal(config, &c); err != nil {
		return Added{}, fmt.Errorf("parsing the config: %w", err)
	}
	if restorable(c.Created) {
		told := map[string]string{createdBefore: string(c.Created)}
		maps.Copy(told, layer.Annotations)
		layer.Annotations = told
	}
	if err := m.Config.Digest.Validate(); err != nil {
		return Added{}, fmt.Errorf("digest %q of the config: %w", m.Config.Digest, err)
	}
	out := Added{}
	var err error
	if out.Config, err = addToConfig(config, &c, layer.Digest, now); err != nil {
		return Added{}, fmt.Errorf("changing the config: %w", err)
	}
	out.DiffIDs = c.RootFS.DiffIDs
	desc := m.Config
	desc.Digest, desc.Size = m.Config.Digest.Algorithm().FromBytes(out.Config), int64(len(out.Config))
	if desc.Data != nil {
		desc.Data = out.Config
	}
	if out.Manifest, err = addToManifest(manifest, &m, layer, out.Config, desc); err != nil {
		return Added{}, fmt.Errorf("changing the manifest: %w", err)
	}
	out.Parsed = m
	return out, same(out.Manifest, m)
}

// addToConfig adds a layer to a config, which c is what is in, and to c.
func addToConfig(config []byte, c *layered, layer digest.Digest, now time.Time) ([]byte, error) {
	t := text{bytes: config}
	root, err := t.object(t.whole())
	if err != nil {
		return nil, err
	}
	rootfs, err := t.object(root["rootfs"])
	if err != nil {
		return nil, err
	}
	if err := t.add(rootfs["diff_ids"], len(c.RootFS.DiffIDs), strconv.Quote(layer.String())); err != nil {
		return nil, err
	}
	c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, layer)
	// Upstream puts its entry before all others, where it says that the bottom
	// layer is the trace. OCI's history is in the order of the layers. An image
	// without history stays so: one entry would be that of layer 0.
	if len(c.History) > 0 {
		h := ocispec.History{Created: &now, CreatedBy: HistoryComment}
		entry, err := json.Marshal(h)
		if err != nil {
			return nil, err
		}
		if err := t.add(root["history"], len(c.History), string(entry)); err != nil {
			return nil, err
		}
		c.History = append(c.History, h)
	}
	if restorable(c.Created) {
		c.Created = json.RawMessage(strconv.Quote(now.Format(time.RFC3339)))
		if root["created"] == (value{}) {
			return nil, errTwice
		}
		t.set(root["created"], string(c.Created))
	}
	out := t.edited()
	return out, same(out, *c)
}

// addToManifest adds a layer to a manifest, which m is what is in, and to m, and
// names another config, which desc describes.
func addToManifest(manifest []byte, m *ocispec.Manifest, layer ocispec.Descriptor, config []byte, desc ocispec.Descriptor) ([]byte, error) {
	t := text{bytes: manifest}
	root, err := t.object(t.whole())
	if err != nil {
		return nil, err
	}
	entry, err := json.Marshal(layer)
	if err != nil {
		return nil, err
	}
	if err := t.add(root["layers"], len(m.Layers), string(entry)); err != nil {
		return nil, err
	}
	if err := t.describe(root["config"], desc, config); err != nil {
		return nil, err
	}
	m.Config, m.Layers = desc, append(slices.Clone(m.Layers), layer)
	if m.Subject != nil {
		if err := t.unset(t.whole(), "subject", "artifactType"); err != nil {
			return nil, err
		}
		m.Subject, m.ArtifactType = nil, ""
	}
	return t.edited(), nil
}

// restorable reports whether what a config says of when an image was created is
// that, and so can be replaced and put back.
func restorable(created json.RawMessage) bool {
	var at *time.Time
	return len(created) > 0 && len(created) <= maxCreated && json.Unmarshal(created, &at) == nil
}

package traces

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/snapshot/labels"
)

// HistoryComment is what the history of an image says created its trace layer;
// upstream's.
const HistoryComment = "Acceleration Layer"

// Dropped is an image without its trace layers.
type Dropped struct {
	// Manifest and Config are the texts of both.
	Manifest, Config []byte
	// Layers are the descriptors of the layers that went, bottom first.
	Layers []ocispec.Descriptor
}

// Layers returns the indexes of the trace layers among layers. There may be
// several: what does not know about them stacks layers on top of one.
func Layers(layers []ocispec.Descriptor) []int {
	var all []int
	for i, d := range layers {
		if labels.IsTrace(d.Annotations) {
			all = append(all, i)
		}
	}
	return all
}

// errTwice is the error of documents in which Go's parser finds something else
// than what stands there: keys that are there twice, or in another case.
var errTwice = errors.New("it has a key twice, or in another case than the specification")

// Drop removes the trace layers from an image, which manifest and config are
// the texts of: the layers, their diff IDs and their entries of the history.
// If the layer says when the image was created without it, the config says that
// again. Nothing else in the texts changes, so that an image that got a trace and
// nothing else becomes the one that it was made of. Without a trace layer, nothing
// changes at all.
func Drop(manifest, config []byte) (Dropped, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return Dropped{}, fmt.Errorf("parsing the manifest: %w", err)
	}
	which := Layers(m.Layers)
	if len(which) == 0 {
		return Dropped{Manifest: manifest, Config: config}, nil
	}
	if err := m.Config.Digest.Validate(); err != nil {
		return Dropped{}, fmt.Errorf("digest %q of the config: %w", m.Config.Digest, err)
	}
	out := Dropped{}
	for _, i := range which {
		out.Layers = append(out.Layers, m.Layers[i])
	}
	var err error
	if out.Config, err = dropFromConfig(config, len(m.Layers), which, before(out.Layers)); err != nil {
		return Dropped{}, fmt.Errorf("changing the config: %w", err)
	}
	desc := m.Config
	desc.Digest, desc.Size = m.Config.Digest.Algorithm().FromBytes(out.Config), int64(len(out.Config))
	if desc.Data != nil {
		desc.Data = out.Config
	}
	if out.Manifest, err = dropFromManifest(manifest, which, desc, out.Config); err != nil {
		return Dropped{}, fmt.Errorf("changing the manifest: %w", err)
	}
	m.Config, m.Layers = desc, without(m.Layers, which)
	return out, same(out.Manifest, m)
}

// before returns what trace layers, bottom first, say of when the image below was
// created; nil if that is nothing.
func before(layers []ocispec.Descriptor) json.RawMessage {
	for _, d := range layers {
		if text := json.RawMessage(d.Annotations[createdBefore]); restorable(text) {
			return text
		}
	}
	return nil
}

// dropFromManifest removes layers and names another config.
func dropFromManifest(manifest []byte, which []int, desc ocispec.Descriptor, config []byte) ([]byte, error) {
	t := text{bytes: manifest}
	root, err := t.object(t.whole())
	if err != nil {
		return nil, err
	}
	layers, err := t.array(root["layers"])
	if err != nil {
		return nil, err
	}
	if err := t.describe(root["config"], desc, config); err != nil {
		return nil, err
	}
	t.remove(layers, which)
	return t.edited(), nil
}

// layered is the part of a config that changes with its layers.
type layered struct {
	RootFS struct {
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"rootfs"`
	History []ocispec.History `json:"history"`
	Created json.RawMessage   `json:"created"`
}

// dropFromConfig removes what a config says about some of its layers. created is
// what it is to say of when the image was created; nil: what it does.
func dropFromConfig(config []byte, layers int, which []int, created json.RawMessage) ([]byte, error) {
	var c layered
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, err
	}
	if len(c.RootFS.DiffIDs) != layers {
		return nil, fmt.Errorf("it has %d diff IDs for %d layers", len(c.RootFS.DiffIDs), layers)
	}
	t := text{bytes: config}
	root, err := t.object(t.whole())
	if err != nil {
		return nil, err
	}
	rootfs, err := t.object(root["rootfs"])
	if err != nil {
		return nil, err
	}
	ids, err := t.array(rootfs["diff_ids"])
	if err != nil {
		return nil, err
	}
	if len(ids) != layers {
		return nil, errTwice
	}
	t.remove(ids, which)
	c.RootFS.DiffIDs = without(c.RootFS.DiffIDs, which)
	if past := entries(c.History, layers, which); len(past) > 0 {
		history, err := t.array(root["history"])
		if err != nil {
			return nil, err
		}
		if len(history) != len(c.History) {
			return nil, errTwice
		}
		t.remove(history, past)
		c.History = without(c.History, past)
	}
	if at, ok := root["created"]; ok && created != nil {
		t.set(at, string(created))
		c.Created = created
	}
	out := t.edited()
	return out, same(out, c)
}

// entries returns which entries of a history are of layers. Those of
// trace layers are known by their place, if there is one entry for each layer and
// it says what it is. Upstream puts its own first, so else they are known by what
// they say alone; if none says it, by their place alone; else there are none.
func entries(history []ocispec.History, layers int, which []int) []int {
	var said, filled []int
	for i, h := range history {
		if h.EmptyLayer {
			continue
		}
		filled = append(filled, i)
		if h.CreatedBy == HistoryComment || h.Comment == HistoryComment {
			said = append(said, i)
		}
	}
	var placed []int
	if len(filled) == layers {
		for _, i := range which {
			placed = append(placed, filled[i])
		}
	}
	// One that an earlier trace layer left may be there as well.
	other := slices.ContainsFunc(placed, func(i int) bool { return !slices.Contains(said, i) })
	if len(said) > 0 && (other || placed == nil) {
		return said[:min(len(said), len(which))]
	}
	return placed
}

// without returns what of all is not at one of the indexes.
func without[T any](all []T, which []int) []T {
	rest := all[:0:0]
	for i, v := range all {
		if !slices.Contains(which, i) {
			rest = append(rest, v)
		}
	}
	return rest
}

// same returns an error if a document does not say what it should.
func same[T any](document []byte, want T) error {
	var got T
	if err := json.Unmarshal(document, &got); err != nil {
		return err
	}
	// A slice that was emptied is not nil, as in the document.
	if !reflect.DeepEqual(got, want) {
		return errTwice
	}
	return nil
}

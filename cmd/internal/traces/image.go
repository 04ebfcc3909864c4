package traces

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

// target is an image that a trace can be of: its manifest for one platform.
type target struct {
	doc source.Document
	// layers are those of the device, bottom first, trace those that are not.
	layers, trace []ocispec.Descriptor
}

// choose finds the manifest of an image for a platform, this host's if it is
// empty.
func choose(ctx context.Context, image *source.Content, platform string) (target, error) {
	doc, err := source.ChooseManifest(ctx, image.Root, platform, image.Document)
	if err == nil {
		err = image.CheckPlatform(ctx, doc.Desc, doc.Manifest.Config, platform)
	}
	if err != nil {
		return target{}, err
	}
	return newTarget(doc)
}

func newTarget(doc source.Document) (target, error) {
	t := target{doc: doc}
	for i, d := range doc.Manifest.Layers {
		l, err := labels.Parse(d.Annotations)
		switch {
		case err != nil:
			return t, fmt.Errorf("layer %d (%s): %w", i, d.Digest, err)
		case l.Trace:
			t.trace = append(t.trace, d)
			continue
		case l.Turbo || l.Blob == "":
			return t, fmt.Errorf("layer %d (%s): %w", i, d.Digest, source.ErrNotOverlaybd)
		}
		t.layers = append(t.layers, d)
	}
	if len(t.layers) == 0 {
		return t, source.ErrNotOverlaybd
	}
	return t, nil
}

// plan returns the layers as a plan names them.
func (t target) plan() []tracelayer.PlanLayer { return PlanLayers(t.layers) }

// FromImage returns the recording in the trace layer of an image, of which
// platform selects a manifest, this host's if it is empty. The image has to stay
// open for as long as it is used.
func FromImage(ctx context.Context, image *source.Content, platform string) (*Recording, error) {
	t, err := choose(ctx, image, platform)
	var r *Recording
	switch {
	case err != nil:
	case len(t.trace) == 0:
		err = fmt.Errorf("%w: it has no trace layer", ErrNoTrace)
	default:
		r, err = fromImage(ctx, image, t)
	}
	if err != nil {
		return nil, fmt.Errorf("taking the trace of %s: %w", image.Name, err)
	}
	return r, nil
}

// fromImage returns the recording in the trace layer of t.
func fromImage(ctx context.Context, image *source.Content, t target) (*Recording, error) {
	config, err := image.Read(ctx, t.doc.Manifest.Config)
	if err != nil {
		return nil, fmt.Errorf("reading the config: %w", err)
	}
	r := &Recording{Name: image.Name, trust: true} // it is there already, whatever it is
	if r.Time, err = recorded(config); err != nil {
		return nil, fmt.Errorf("parsing the config: %w", err)
	}
	b, err := image.Open(t.trace[len(t.trace)-1])
	if err != nil {
		return nil, err
	}
	if err := r.openLayer(ctx, b, image); err != nil {
		return nil, err
	}
	r.of(t.plan())
	return r, nil
}

// recorded returns when the trace layer of an image was made: what its entry of
// the history says, which is the last if there are several, or else the image's
// own time. Zero if neither says it.
func recorded(config []byte) (time.Time, error) {
	var c struct {
		Created *time.Time        `json:"created"`
		History []ocispec.History `json:"history"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return time.Time{}, err
	}
	for _, h := range slices.Backward(c.History) {
		if h.CreatedBy == HistoryComment && h.Created != nil {
			return *h.Created, nil
		}
	}
	if c.Created != nil {
		return *c.Created, nil
	}
	return time.Time{}, nil
}

// PlanLayers returns the layers of an image as a plan names them.
func PlanLayers(layers []ocispec.Descriptor) []tracelayer.PlanLayer {
	all := make([]tracelayer.PlanLayer, len(layers))
	for i, d := range layers {
		all[i] = tracelayer.PlanLayer{Digest: d.Digest, Size: d.Size}
	}
	return all
}

// Foreign returns how many reads of a trace are of layers that an image with so many
// of them does not have.
func Foreign(t tracelayer.Trace, layers int) (n int) {
	for _, r := range t {
		if int64(r.Layer) >= int64(layers) {
			n++
		}
	}
	return n
}

// Differences says which layers of a recording are not those of an image; ""
// if all are.
func Differences(image, recorded []tracelayer.PlanLayer) string {
	var all []string
	for i := range min(len(image), len(recorded)) {
		if image[i] != recorded[i] {
			all = append(all, fmt.Sprintf("layer %d is %s (%d bytes), the trace has %s (%d bytes)", i,
				image[i].Digest, image[i].Size, recorded[i].Digest, recorded[i].Size))
		}
	}
	if len(image) != len(recorded) {
		all = append(all, fmt.Sprintf("it has %d layers, the trace is of %d", len(image), len(recorded)))
	}
	return strings.Join(all, "; ")
}

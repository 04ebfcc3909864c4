package convert

import (
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/snapshot/labels"
)

// overlaybd returns how many layers, from the bottom on, are overlaybd layers
// already. Others may lie on them if they can be converted on them: that is what
// committing a container makes. There is no trace layer among descs.
func (c *conversion) overlaybd(descs []ocispec.Descriptor) (int, error) {
	base, already := 0, 0
	for i, d := range descs {
		l, err := labels.Parse(d.Annotations)
		if err != nil {
			return 0, fmt.Errorf("layer %d (%s): %w", i, d.Digest, err)
		}
		if l.Turbo {
			return 0, fmt.Errorf("layer %d (%s) is a TurboOCI layer: convert the image that was made of", i, d.Digest)
		}
		if l.Blob == "" {
			continue
		}
		already++
		if base == i {
			base++
		}
	}
	if already == len(descs) || already == 0 {
		return already, nil
	}
	for _, d := range descs[:base] {
		if !c.buildable(d) {
			base = 0
		}
	}
	if already != base {
		return 0, fmt.Errorf("%d of its %d layers are overlaybd layers already: others can be converted only on layers that reprise converted, for a device of the same size",
			already, len(descs))
	}
	return base, nil
}

// buildable reports whether d is a layer that layers can be converted on: how it
// is compressed does not matter for that.
func (c *conversion) buildable(d ocispec.Descriptor) bool {
	o, ok := labels.ParseOrigin(d.Annotations)
	is, want := strings.Split(o.Converter, ";"), strings.Split(c.converter, ";")
	return ok && len(is) == len(want) && slices.Equal(is[:2], want[:2]) && is[len(is)-1] == want[len(want)-1]
}

// build makes layers those that the others are converted on, as they are. What
// they say they were converted from is not believed: layers on them are known by
// what the base is, not by what it claims to be.
func (c *conversion) build(layers []*layer, descs []ocispec.Descriptor) error {
	for i, l := range layers {
		if l.report.SourceID != l.source.Digest {
			return fmt.Errorf("layer %d is %s, its diff ID %s: an overlaybd layer is not compressed as a whole", i, l.source.Digest, l.report.SourceID)
		}
		l.base, l.out = true, l.source
		l.out.MediaType, l.out.Annotations = ocispec.MediaTypeImageLayer, descs[i].Annotations
		l.report.Digest, l.report.Size = l.out.Digest, l.out.Size
	}
	return nil
}

package check

import (
	"context"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

// traces checks the trace layers of an image. A wrong one makes starts slow, and
// is none of the device: what is wrong with what it holds are warnings.
func (r *Result) traces(ctx context.Context, img *source.Image, cfg Config) error {
	all := img.Stale
	if img.Trace != nil {
		all = append(all[:len(all):len(all)], img.Trace)
	}
	for i, b := range all {
		c := checker{cfg: cfg, blob: b, opaque: true}
		if i < len(img.Stale) {
			c.problem(Problem{Kind: Stack, Warning: true, Text: "layers lie above this trace layer, so nobody replays it, and overlaybd's tools can not open the image: " +
				"reprise trace strip removes it"})
		} else {
			c.trace(ctx, img.Descriptors())
		}
		found := c.res.Problems
		if err := c.run(ctx); err != nil {
			return err
		}
		c.res.Problems = append(found, c.res.Problems...)
		r.Layers = append(r.Layers, c.res)
	}
	return nil
}

// trace checks what the trace layer holds, which is about layers.
func (c *checker) trace(ctx context.Context, layers []ocispec.Descriptor) {
	warn := func(k Kind, format string, args ...any) {
		c.problem(Problem{Kind: k, Warning: true, Text: fmt.Sprintf(format, args...)})
	}
	rec, err := traces.OpenLayer(ctx, c.blob, true)
	if err != nil {
		warn(Trace, "%v", err)
		return
	}
	for _, n := range rec.Notes {
		warn(Trace, "%s", n)
	}
	if foreign := traces.Foreign(rec.Trace, len(layers)); foreign > 0 {
		warn(Trace, "%d of %d reads are of layers that the image does not have", foreign, len(rec.Trace))
	}
	if rec.Plan != nil {
		if diff := traces.Differences(traces.PlanLayers(layers), rec.Plan.Layers); diff != "" {
			warn(Trace, "the plan is of another image: %s", diff)
		}
	}
	said, err := labels.Plan(c.blob.Descriptor().Annotations)
	switch {
	case err != nil:
		warn(Descriptor, "%v", err)
	case said != (tracelayer.Member{}) && said != rec.Member:
		warn(Descriptor, "the annotations say that the plan is %d bytes at %d with digest %s, it is %d bytes at %d with digest %s",
			said.Size, said.Offset, said.Digest, rec.Member.Size, rec.Member.Offset, rec.Member.Digest)
	}
}

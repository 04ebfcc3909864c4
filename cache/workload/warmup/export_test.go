package warmup

import (
	"context"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// Plan is what a survey of a trace finds.
type Plan struct {
	Blobs, Contents, Manifests int
	Listing                    int // manifests that list layers
	Layers                     int // that they list
}

// Survey surveys a trace.
func Survey(ctx context.Context, r trace.Reader) (Plan, error) {
	p, err := survey(ctx, r, Config{Unsized: 4096})
	out := Plan{Blobs: len(p.blobs), Manifests: len(p.manifests)}
	for _, o := range p.blobs {
		if o.like == nil {
			out.Contents++
		}
	}
	for _, o := range p.manifests {
		out.Layers += len(o.layers)
		if len(o.layers) > 0 {
			out.Listing++
		}
	}
	return out, err
}

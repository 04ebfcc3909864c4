package fill

import (
	"cmp"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Progress is a fetch that is under way.
type Progress struct {
	Blob   ocispec.Descriptor
	Origin string // whose blob it is
	Extent        // what was asked for
	Pos    int64  // what is before it has come
}

// Progress returns the fetches that are under way, those of the largest extents first.
func (g *Group) Progress() []Progress {
	g.mu.Lock()
	all := make([]*filling, 0, len(g.blobs))
	for _, f := range g.blobs {
		all = append(all, f)
	}
	g.mu.Unlock()
	var out []Progress
	for _, f := range all {
		f.mu.Lock()
		for _, x := range f.fetches {
			out = append(out, Progress{Blob: x.x.Descriptor(), Origin: x.x.Origin(), Extent: x.Extent, Pos: x.pos})
		}
		f.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Progress) int {
		return cmp.Or(cmp.Compare(b.End-b.Off, a.End-a.Off), cmp.Compare(a.Blob.Digest, b.Blob.Digest), cmp.Compare(a.Off, b.Off))
	})
	return out
}

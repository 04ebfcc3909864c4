package cachepage

import (
	"cmp"
	"slices"
	"sync"

	"github.com/reprise-containers/reprise/cache/proxy"
)

// Traffic counts requests by image, and by kind. It is told of each request.
type Traffic struct {
	mu     sync.Mutex
	images map[image]*Count
	kinds  map[string]*Count
}

// image is a repository of a registry.
type image struct{ host, repository string }

// Count is what was asked for.
type Count struct {
	Requests, Hits  uint64 // of those that were answered with content
	Bytes, HitBytes int64  // sent; of hits
}

// mostImages is how many images are counted. When there are more, the one with the
// fewest requests makes room, and the new one has as many (Space-Saving, Metwally et
// al. 2005): what is asked for often is in the list, at most with too many.
const mostImages = 1000

// NewTraffic returns a Traffic without counts.
func NewTraffic() *Traffic {
	return &Traffic{images: make(map[image]*Count), kinds: make(map[string]*Count)}
}

// Observe implements proxy.Observer.
func (t *Traffic) Observe(r proxy.Record) {
	hit := false
	switch r.Outcome {
	case proxy.OutcomeHit, proxy.OutcomeRevalidated, proxy.OutcomeStale:
		hit = true
	case proxy.OutcomeMiss, proxy.OutcomePartial:
	default:
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	kind := t.kinds[r.Kind]
	if kind == nil { // of which there are few
		kind = new(Count)
		t.kinds[r.Kind] = kind
	}
	kind.add(r.Bytes, hit)
	if r.Repo != "" {
		t.image(image{r.Upstream, r.Repo}).add(r.Bytes, hit)
	}
}

func (c *Count) add(n int64, hit bool) {
	c.Requests++
	c.Bytes += n
	if hit {
		c.Hits++
		c.HitBytes += n
	}
}

// image returns the counts of an image; t.mu is held.
func (t *Traffic) image(i image) *Count {
	if c := t.images[i]; c != nil {
		return c
	}
	c := new(Count)
	if len(t.images) >= mostImages {
		var least image
		for k, v := range t.images {
			if c.Requests == 0 || v.Requests < c.Requests {
				least, *c = k, *v
			}
		}
		delete(t.images, least)
	}
	t.images[i] = c
	return c
}

// ImageCount is what was asked for of an image.
type ImageCount struct {
	Host, Repository string
	Count
}

// Top returns the n images with the most requests.
func (t *Traffic) Top(n int) []ImageCount {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]ImageCount, 0, len(t.images))
	for i, c := range t.images {
		out = append(out, ImageCount{i.host, i.repository, *c})
	}
	slices.SortFunc(out, func(a, b ImageCount) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Repository, b.Repository))
	})
	return out[:min(n, len(out))]
}

// Kinds returns the counts by kind.
func (t *Traffic) Kinds() map[string]Count {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[string]Count, len(t.kinds))
	for k, c := range t.kinds {
		out[k] = *c
	}
	return out
}

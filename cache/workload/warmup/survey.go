package warmup

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"io"
	"math/bits"
	"net/http"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// object is something to push.
type object struct {
	uri        string
	repository string
	reference  string
	kind       trace.Kind // in the trace: Blob or Manifest
	size       int64      // largest that was seen, bytes; -1: none
	ranged     bool       // parts of it are read
	layers     []*object
	like       *object       // whose content it has, of a blob; nil: its own
	digest     digest.Digest // once it is pushed
}

// plan is what a trace asks for.
type plan struct {
	blobs     []*object // in the order in which they are first read
	manifests []*object
}

// mostLayers is how many layers a manifest gets: images have no more than 127.
const mostLayers = 127

// surveyor finds what a trace reads, and which blobs belong to which manifests: those
// of its repository that the same client reads next, until it reads another manifest
// there. In recorded traffic that is 7 blobs for a manifest that is not only looked
// at, four of them in the median.
type surveyor struct {
	cfg     Config
	objects map[string]*object
	plan    plan
	current map[[2]string]*object // manifest, by client and repository
}

// survey reads the trace to its end.
func survey(ctx context.Context, r trace.Reader, cfg Config) (plan, error) {
	s := &surveyor{cfg: cfg, objects: make(map[string]*object), current: make(map[[2]string]*object)}
	for n := 0; ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return plan{}, ctx.Err()
		}
		x, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return plan{}, err
		}
		s.add(x)
	}
	s.share()
	return s.plan, nil
}

func (s *surveyor) add(x trace.Request) {
	reads := x.Method == http.MethodGet || x.Method == http.MethodHead
	worked := x.Status == 0 || x.Status >= 200 && x.Status < 400
	if !reads || !worked {
		return
	}
	t := trace.Parse(x.URI)
	key := [2]string{x.Client, t.Repository}
	switch t.Kind {
	case trace.Manifest:
		o := s.object(x, t)
		if x.Method == http.MethodGet {
			s.current[key] = o
		}
	case trace.Blob:
		o := s.object(x, t)
		if m := s.current[key]; m != nil && !s.cfg.Blobs && len(m.layers) < mostLayers && !slices.Contains(m.layers, o) {
			m.layers = append(m.layers, o)
		}
	}
}

func (s *surveyor) object(x trace.Request, t trace.Target) *object {
	o := s.objects[x.URI]
	if o == nil {
		o = &object{uri: x.URI, repository: cmp.Or(s.cfg.Repository, t.Repository), reference: t.Reference, kind: t.Kind, size: -1}
		s.objects[x.URI] = o
		if t.Kind == trace.Manifest && !s.cfg.Blobs {
			s.plan.manifests = append(s.plan.manifests, o)
		} else {
			s.plan.blobs = append(s.plan.blobs, o)
		}
	}
	o.size = max(o.size, sizeOf(x))
	o.ranged = o.ranged || x.Len > 0
	return o
}

// sizeOf returns how large the object is at least that was answered, -1 if the answer
// does not tell.
func sizeOf(x trace.Request) int64 {
	switch {
	case x.Status/100 == 3: // of which the size is that of a note
		return -1
	case x.Method == http.MethodHead && x.Size == 0: // of which nothing is written
		return -1
	case x.Len == 0 || x.Status == http.StatusOK:
		return x.Size
	case x.Status != http.StatusPartialContent || x.Size <= 0: // no status is known
		return x.Off + x.Len
	}
	return x.Off + min(x.Len, x.Size) // the range may have reached beyond the end
}

// share decides which blobs have the content of an earlier one. Those of one name in
// several repositories are one blob, as content has it. Of the others some get the
// content of the last of about the same size, within a factor of two. Which they are
// is decided by their URIs, so that it is the same each time.
func (s *surveyor) share() {
	named := s.named()
	var last [65]*object // by the length of the size in bits
	for _, o := range s.plan.blobs {
		if first := named[o.reference]; o.kind == trace.Blob && first != o {
			o.size = first.size
			o.like = cmp.Or(first.like, first)
			continue
		}
		if o.size < 0 {
			o.size = s.cfg.Unsized
		}
		class := bits.Len64(uint64(o.size))
		like := last[class]
		if like != nil && chance(o.uri) < s.cfg.Dedupe && (!o.ranged || like.size >= o.size) {
			o.like = like
			continue
		}
		last[class] = o
	}
}

// named returns the first blob of each name, with what is known of all of that name.
func (s *surveyor) named() map[string]*object {
	named := make(map[string]*object)
	for _, o := range s.plan.blobs {
		if o.kind != trace.Blob {
			continue
		}
		first := named[o.reference]
		if first == nil {
			named[o.reference] = o
			continue
		}
		first.size = max(first.size, o.size)
		first.ranged = first.ranged || o.ranged
	}
	return named
}

// chance returns a number from 0 to 1 that is as good as random, and always the same
// for a text.
func chance(text string) float64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, text) // a hash takes everything
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11) / (1 << 53)
}

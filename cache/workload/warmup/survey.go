package warmup

import (
	"cmp"
	"context"
	"hash/fnv"
	"io"
	"math/bits"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// object is something to push.
type object struct {
	uri        string
	repository string
	reference  string // of a manifest
	size       int64  // largest that was seen, bytes; -1: none
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
		if err == io.EOF {
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
	reads := x.Method == "GET" || x.Method == "HEAD"
	worked := x.Status == 0 || x.Status >= 200 && x.Status < 400
	if !reads || !worked {
		return
	}
	t := trace.Parse(x.URI)
	key := [2]string{x.Client, t.Repository}
	switch t.Kind {
	case trace.Manifest:
		o := s.object(x, t)
		if x.Method == "GET" {
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
		o = &object{uri: x.URI, repository: cmp.Or(s.cfg.Repository, t.Repository), reference: t.Reference, size: -1}
		s.objects[x.URI] = o
		if t.Kind == trace.Manifest && !s.cfg.Blobs {
			s.plan.manifests = append(s.plan.manifests, o)
		} else {
			s.plan.blobs = append(s.plan.blobs, o)
		}
	}
	size := x.Size
	if x.Len > 0 {
		size = x.Off + x.Len
	}
	if x.Method == "HEAD" && size == 0 { // of which nothing is written
		size = -1
	}
	o.size = max(o.size, size)
	return o
}

// share gives some blobs the content of an earlier one: the last of about the same
// size, within a factor of two. Which they are is decided by their URIs, so that it
// is the same each time.
func (s *surveyor) share() {
	var last [65]*object // by the length of the size in bits
	for _, o := range s.plan.blobs {
		if o.size < 0 {
			o.size = s.cfg.Unsized
		}
		class := bits.Len64(uint64(o.size))
		if last[class] != nil && chance(o.uri) < s.cfg.Dedupe {
			o.like = last[class]
			continue
		}
		last[class] = o
	}
}

// chance returns a number from 0 to 1 that is as good as random, and always the same
// for a text.
func chance(text string) float64 {
	h := fnv.New64a()
	io.WriteString(h, text)
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11) / (1 << 53)
}

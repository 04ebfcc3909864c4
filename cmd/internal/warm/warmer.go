// Package warm has the registry cache fetch what the start of an image reads
// before its nodes ask for it: when a manifest with a recorded start is served,
// what that recording names is fetched within a budget of bytes a second.
//
// What is fetched is, as on a node, what the plan of the trace layer says, or what a
// trace without a plan says by way of the layers' jump tables, or the files that a
// list names. And the trace layer itself, whose data nodes stream.
//
// A trace is advice by whoever made it. It decides what is fetched, from the
// repository that the manifest is in and with the rights of who asked for it, and
// nothing else; whatever is wrong with it is counted and nobody's error.
package warm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/fill"
	"github.com/reprise-containers/reprise/cache/proxy"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

const (
	// maxWaiting is how many images may wait for their turn.
	maxWaiting = 256
	// maxSeen is how many images are remembered as looked at.
	maxSeen = 16384
	// longest is how long an image may take, so that an upstream that hangs does
	// not keep others from their turn.
	longest = 15 * time.Minute
	// burst is how many bytes may be fetched at once, whatever the bandwidth.
	burst = 1 << 20
)

// Config bounds what is done.
type Config struct {
	Bandwidth int64         // bytes a second; 0: no limit
	Images    int           // at a time
	Again     time.Duration // how long an image is not looked at again
	// MaxBytes is how much is fetched for one image; 0: no limit.
	MaxBytes int64
}

// Stats are counts since the start.
type Stats struct {
	Traces  int64 // manifests with a recorded start that were served
	Warmed  int64 // images of which all was fetched
	Partial int64 // of these, with something left out
	Invalid int64 // with something wrong in the trace
	Failed  int64 // whose trace or layers could not be fetched
	Dropped int64 // for which there was no room in the queue
	Bytes   int64 // asked for and not there before
	Waiting int   // images now
	Running int
}

// Warmer fetches while Run runs.
type Warmer struct {
	cache   *cache.Cache
	fill    *fill.Group
	cfg     Config
	limit   *rate.Limiter
	onError func(error)
	jobs    chan job

	traces, warmed, partial, invalid, failed, dropped, bytes, running atomic.Int64

	mu   sync.Mutex
	seen map[seenKey]time.Time
}

// seenKey is an image in a repository of an upstream: another repository may be
// one of which the caller may read other blobs.
type seenKey struct {
	origin, repository string
	manifest           digest.Digest
}

// job is an image that waits.
type job struct {
	proxy.Manifest
	trace  ocispec.Descriptor
	layers []ocispec.Descriptor // without the trace
}

// New returns a Warmer that fetches by way of g into c. onError may be nil.
func New(c *cache.Cache, g *fill.Group, cfg Config, onError func(error)) *Warmer {
	w := &Warmer{
		cache: c, fill: g, cfg: cfg, onError: onError,
		jobs: make(chan job, maxWaiting), seen: make(map[seenKey]time.Time),
	}
	if cfg.Bandwidth > 0 {
		w.limit = rate.NewLimiter(rate.Limit(cfg.Bandwidth), burst)
	}
	return w
}

// Stats returns the counts.
func (w *Warmer) Stats() Stats {
	return Stats{
		Traces: w.traces.Load(), Warmed: w.warmed.Load(), Partial: w.partial.Load(), Invalid: w.invalid.Load(),
		Failed: w.failed.Load(), Dropped: w.dropped.Load(), Bytes: w.bytes.Load(),
		Waiting: len(w.jobs), Running: int(w.running.Load()),
	}
}

var traceMark = []byte(labels.Trace)

// OnManifest looks at a manifest that is served. It returns at once, and costs next
// to nothing for images without a trace.
func (w *Warmer) OnManifest(_ context.Context, m proxy.Manifest) {
	if !bytes.Contains(m.Body, traceMark) {
		return
	}
	j, ok := w.parse(m)
	if !ok {
		return
	}
	w.traces.Add(1)
	key := seenKey{proxy.Origin(m.Target), m.Repository, m.Descriptor.Digest}
	if !w.first(key, time.Now()) {
		return
	}
	select {
	case w.jobs <- j:
	default:
		w.dropped.Add(1)
		w.forget(key)
	}
}

// parse finds the trace layer, and the layers that it is of: those beside it, or if
// the manifest is that of a trace beside an image, those of the image, which was
// asked for before it.
func (w *Warmer) parse(m proxy.Manifest) (j job, ok bool) {
	var doc ocispec.Manifest
	if json.Unmarshal(m.Body, &doc) != nil {
		return j, false
	}
	j.Manifest = m
	for _, d := range doc.Layers {
		if labels.IsTrace(d.Annotations) {
			j.trace, ok = d, true
		} else {
			j.layers = append(j.layers, d)
		}
	}
	if ok && doc.ArtifactType == labels.TraceArtifact && doc.Subject != nil {
		j.layers = w.layersOf(m, *doc.Subject)
	}
	return j, ok
}

// layersOf returns the layers of an image whose manifest is in the cache.
func (w *Warmer) layersOf(m proxy.Manifest, subject ocispec.Descriptor) []ocispec.Descriptor {
	x, ok := w.cache.Find(proxy.Origin(m.Target), subject.Digest)
	if !ok {
		return nil
	}
	defer x.Release()
	if size := x.Descriptor().Size; !x.Verified() || size > proxy.DefaultMaxManifest {
		return nil
	}
	text := make([]byte, x.Descriptor().Size)
	if n, _ := x.ReadAt(text, 0); n < len(text) {
		return nil
	}
	var doc ocispec.Manifest
	if json.Unmarshal(text, &doc) != nil {
		return nil
	}
	return doc.Layers
}

// first reports whether an image was not looked at for a while, and notes that it
// is now.
func (w *Warmer) first(k seenKey, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if at, ok := w.seen[k]; ok && now.Sub(at) < w.cfg.Again {
		return false
	}
	if len(w.seen) >= maxSeen {
		for old, at := range w.seen {
			if now.Sub(at) >= w.cfg.Again {
				delete(w.seen, old)
			}
		}
		if len(w.seen) >= maxSeen {
			clear(w.seen)
		}
	}
	w.seen[k] = now
	return true
}

func (w *Warmer) forget(k seenKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.seen, k)
}

// Run fetches until ctx ends.
func (w *Warmer) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	for range max(w.cfg.Images, 1) {
		workers.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case j := <-w.jobs:
					w.warm(ctx, j)
				}
			}
		})
	}
	return nil
}

// warm fetches for one image and counts what came of it.
func (w *Warmer) warm(daemon context.Context, j job) {
	w.running.Add(1)
	defer w.running.Add(-1)
	ctx, cancel := context.WithTimeout(daemon, longest)
	defer cancel()
	im := &image{w: w, job: j, origin: proxy.Origin(j.Target)}
	defer im.release()
	err := im.fetch(ctx)
	switch {
	case daemon.Err() != nil:
		return
	case errors.Is(err, errInvalid):
		w.invalid.Add(1)
	case err != nil:
		w.failed.Add(1)
	default:
		w.warmed.Add(1)
		if im.left > 0 {
			w.partial.Add(1)
		}
		return
	}
	if w.onError != nil {
		w.onError(err)
	}
}

// pay waits until n more bytes may be fetched.
func (w *Warmer) pay(ctx context.Context, n int) error {
	w.bytes.Add(int64(n))
	if w.limit == nil {
		return ctx.Err()
	}
	for n > 0 {
		part := min(n, burst)
		if err := w.limit.WaitN(ctx, part); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

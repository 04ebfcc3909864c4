package warmup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache/workload/content"
	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/outcome"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// worker pushes what was planned.
type worker struct {
	cfg    Config
	client *load.Client

	mu      sync.Mutex
	done    outcome.Map
	stats   Stats
	save    time.Time // when the map is saved next
	told    time.Time
	strikes int                 // what failed since something worked, see strike
	configs map[string]struct{} // repository and digest of configurations that are pushed
}

// all pushes what has content of its own, then what has another's, then manifests:
// each needs those before it.
func (w *worker) all(ctx context.Context, p plan) error {
	if err := w.reachable(ctx, p); err != nil {
		return err
	}
	w.save = time.Now().Add(saveEvery)
	var own, shared []*object
	for _, o := range p.blobs {
		if o.like == nil {
			own = append(own, o)
		} else {
			shared = append(shared, o)
		}
	}
	for _, stage := range []struct {
		objects []*object
		push    func(context.Context, *object) error
	}{{own, w.blob}, {shared, w.share}, {p.manifests, w.manifest}} {
		if err := w.each(ctx, stage.objects, stage.push); err != nil {
			return err
		}
	}
	return nil
}

// reachable asks for something that is needed, so that a registry that is not there
// is one error and not one for each object.
func (w *worker) reachable(ctx context.Context, p plan) error {
	some := p.blobs
	if len(some) == 0 {
		some = p.manifests
	}
	_, err := w.client.Head(ctx, load.Object{Repository: some[0].repository, Kind: trace.Blob, Digest: digest.FromString("")})
	if e, ok := errors.AsType[*load.Error](err); ok && e.Cause != load.CauseStatus {
		return fmt.Errorf("warming up: %w", err)
	}
	return nil
}

// each pushes objects, some at a time. What is wrong with one of them is counted.
func (w *worker) each(ctx context.Context, objects []*object, push func(context.Context, *object) error) error {
	g, running := errgroup.WithContext(ctx)
	g.SetLimit(w.cfg.Threads)
	for _, o := range objects {
		if running.Err() != nil {
			break
		}
		g.Go(func() error {
			err := push(running, o)
			if _, lost := errors.AsType[*lostError](err); lost {
				return err
			}
			if running.Err() != nil {
				return running.Err()
			}
			return w.ended(o, err)
		})
	}
	return cmp.Or(g.Wait(), ctx.Err())
}

// ended notes what became of an object, and saves the map when it is time to.
func (w *worker) ended(o *object, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Done++
	if err != nil {
		w.done[o.uri] = outcome.Bad
		w.stats.Bad++
		if w.stats.Why == nil {
			w.stats.Why = make(map[string]int)
		}
		cause := "other"
		if e, ok := errors.AsType[*load.Error](err); ok {
			cause = string(e.Cause)
		}
		w.stats.Why[cause]++
		if w.stats.Example == "" {
			w.stats.Example = fmt.Sprintf("%s: %v", o.uri, err)
		}
	} else {
		w.done[o.uri] = o.digest.String()
	}
	now := time.Now()
	if w.cfg.Progress != nil && (now.Sub(w.told) > time.Second/10 || w.stats.Done == w.stats.Objects) {
		w.told = now
		told := w.stats
		told.Why = maps.Clone(told.Why)
		w.cfg.Progress(told)
	}
	if w.cfg.Save == nil || now.Before(w.save) {
		return nil
	}
	err = w.cfg.Save(w.done)
	// Nobody pushes meanwhile: a map of millions is saved less often.
	w.save = time.Now().Add(max(saveEvery, 20*time.Since(now)))
	return err
}

func (w *worker) count(f func(*Stats)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.stats)
}

// blob pushes a blob with content of its own.
func (w *worker) blob(ctx context.Context, o *object) (err error) {
	if o.digest, err = w.cfg.Maker.Digest(ctx, o.uri, o.size); err != nil {
		return err
	}
	return w.pushBlob(ctx, o, o, "")
}

// share makes a blob of one that another has already: in its repository it is there,
// from another it is mounted, or else pushed again.
func (w *worker) share(ctx context.Context, o *object) error {
	if o.like.digest == "" {
		o.like = nil
		return w.blob(ctx, o)
	}
	w.count(func(s *Stats) { s.Shared++ })
	o.digest, o.size = o.like.digest, o.like.size
	from := o.like.repository
	switch {
	case w.isBad(o.like.uri): // it may work here
		from = ""
	case from == o.repository:
		return nil
	}
	return w.pushBlob(ctx, o, o.like, from)
}

func (w *worker) isBad(uri string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.done[uri] == outcome.Bad
}

// pushBlob pushes the content of an object to the repository of o.
func (w *worker) pushBlob(ctx context.Context, o, of *object, from string) error {
	x := load.Object{Repository: o.repository, Kind: trace.Blob, Digest: o.digest, Size: of.size, From: from,
		Body: func(off int64) io.Reader { return w.body(of.uri, of.size, off) }}
	if w.there(ctx, o, x) {
		return nil
	}
	err := w.push(ctx, x)
	if e, ok := errors.AsType[*load.Error](err); ok && e.Status/100 == 4 && from != "" { // it may be that one may not read there
		x.From = ""
		err = w.push(ctx, x)
	}
	if err != nil {
		return err
	}
	return w.verify(ctx, o, x)
}

func (w *worker) body(uri string, size, off int64) io.Reader {
	b := w.cfg.Maker.Body(uri, size)
	if off > 0 {
		// A body seeks wherever it is asked to.
		_, _ = b.Seek(off, io.SeekStart)
	}
	return b
}

// there reports whether an earlier warmup has pushed the object and the registry
// still has it.
func (w *worker) there(ctx context.Context, o *object, x load.Object) bool {
	w.mu.Lock()
	known := w.done[o.uri] == o.digest.String()
	w.mu.Unlock()
	if !known {
		return false
	}
	if w.cfg.Repository != "" { // tags of several repositories meet in it
		x.Tag = ""
	}
	a, err := w.client.Head(ctx, x)
	if err != nil || a.Status != http.StatusOK || a.Digest != o.digest && (a.Digest != "" || x.Tag != "") {
		return false
	}
	w.count(func(s *Stats) { s.Present++ })
	return true
}

// push pushes something.
func (w *worker) push(ctx context.Context, x load.Object) error {
	return w.attempt(ctx, func() (load.Answer, error) {
		a, err := w.client.Push(ctx, x)
		if err == nil {
			w.count(func(s *Stats) {
				s.Pushed++
				if a.Mounted {
					s.Mounted++
				} else {
					s.Bytes += x.Size
				}
			})
		}
		return a, err
	})
}

// verify reads some of what was pushed back and compares it.
func (w *worker) verify(ctx context.Context, o *object, x load.Object) error {
	if chance("verify "+o.uri) >= w.cfg.Verify {
		return nil
	}
	err := w.attempt(ctx, func() (load.Answer, error) {
		v := o.digest.Verifier()
		n := &counted{w: v}
		a, err := w.client.Fetch(ctx, x, n)
		if err == nil && (!v.Verified() || n.n != x.Size) {
			err = &load.Error{Cause: load.CauseMismatch, Err: fmt.Errorf("the registry has something else under %s", o.digest)}
		}
		return a, err
	})
	if err != nil {
		return fmt.Errorf("reading it back: %w", err)
	}
	w.count(func(s *Stats) { s.Verified++ })
	return nil
}

type counted struct {
	w io.Writer
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.w.Write(p)
}

// manifest pushes a manifest of the blobs that are not bad, and its configuration.
func (w *worker) manifest(ctx context.Context, o *object) error {
	var layers []ocispec.Descriptor
	for _, l := range o.layers {
		if !w.isBad(l.uri) {
			layers = append(layers, ocispec.Descriptor{MediaType: content.LayerType, Digest: l.digest, Size: l.size})
		}
	}
	image, err := w.cfg.Maker.Image(o.uri, o.size, layers)
	if err != nil {
		return err
	}
	o.digest = digest.FromBytes(image.Manifest)
	x := load.Object{Repository: o.repository, Kind: trace.Manifest, Digest: o.digest, MediaType: ocispec.MediaTypeImageManifest,
		Size: int64(len(image.Manifest)), Body: fromBytes(image.Manifest), Tag: tag(o.reference)}
	w.count(func(s *Stats) { s.Manifests++ })
	if w.there(ctx, o, x) {
		return nil
	}
	config := load.Object{Repository: o.repository, Kind: trace.Blob, Digest: digest.FromBytes(image.Config),
		Size: int64(len(image.Config)), Body: fromBytes(image.Config)}
	if err := w.configure(ctx, config); err != nil {
		return fmt.Errorf("its configuration: %w", err)
	}
	if err := w.push(ctx, x); err != nil {
		return err
	}
	return w.verify(ctx, o, x)
}

// configure pushes a configuration, unless another manifest of the repository has the
// same.
func (w *worker) configure(ctx context.Context, x load.Object) error {
	key := x.Repository + "@" + x.Digest.String()
	w.mu.Lock()
	_, pushed := w.configs[key]
	w.mu.Unlock()
	if pushed {
		return nil
	}
	err := w.attempt(ctx, func() (load.Answer, error) { return w.client.Push(ctx, x) })
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.configs[key] = struct{}{}
	}
	return err
}

// tag returns the tag for a reference of the trace; one that is a digest has none.
func tag(reference string) string {
	if digest.Digest(reference).Validate() == nil {
		return ""
	}
	return reference
}

func fromBytes(b []byte) func(off int64) io.Reader {
	return func(off int64) io.Reader { return bytes.NewReader(b[off:]) }
}

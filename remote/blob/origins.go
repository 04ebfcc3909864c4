package blob

import (
	"context"
	"slices"
	"sync"
)

// Origins collects who served the bytes of a read, so that who finds them wrong
// knows whom to blame. A source that has several hosts, or may have, reports to
// the Origins of the read's context. Methods may be called in parallel, and on a
// nil Origins, which keeps nothing.
type Origins struct {
	follow func(off int64, n int)

	mu     sync.Mutex
	served []servedRange
	failed bool
}

type servedRange struct {
	off, end int64
	origin   string
	staged   bool
}

type originsKey struct{}

// WithOrigins returns a context whose reads report to the Origins returned.
// Reads that are answered from a cache, or by a fetch that another read began,
// report nothing.
func WithOrigins(ctx context.Context) (context.Context, *Origins) {
	o := new(Origins)
	return context.WithValue(ctx, originsKey{}, o), o
}

// OriginsOf returns what reads under ctx are to report to, or nil.
func OriginsOf(ctx context.Context) *Origins {
	o, _ := ctx.Value(originsKey{}).(*Origins)
	return o
}

// WithArrivals is WithOrigins with follow called for each range of the read that
// has arrived, on the goroutine of the source and while that reads on.
func WithArrivals(ctx context.Context, follow func(off int64, n int)) (context.Context, *Origins) {
	o := &Origins{follow: follow}
	return context.WithValue(ctx, originsKey{}, o), o
}

// Served notes that origin ("scheme://host") served [off, off+n) bytes of the
// blob, and that they are in the buffer of the read, which the source does not
// touch there any more: they may be looked at already. A source may report a
// read in pieces.
func (o *Origins) Served(off int64, n int, origin string) {
	if o == nil || n <= 0 {
		return
	}
	o.note(servedRange{off, off + int64(n), origin, false})
}

// Staged is Served for bytes that no host served: origin brought them on another
// way, and has none any more once it is rejected.
func (o *Origins) Staged(off int64, n int, origin string) {
	if o == nil || n <= 0 {
		return
	}
	o.note(servedRange{off, off + int64(n), origin, true})
}

func (o *Origins) note(r servedRange) {
	o.add(r)
	if o.follow != nil {
		o.follow(r.off, int(r.end-r.off))
	}
}

func (o *Origins) add(r servedRange) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if k := len(o.served) - 1; k >= 0 && o.served[k].end == r.off && o.served[k].origin == r.origin && o.served[k].staged == r.staged {
		o.served[k].end = r.end
		return
	}
	o.served = append(o.served, r)
}

// Failed notes that a host served nothing now but may do so later.
func (o *Origins) Failed() {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed = true
}

// Of returns who served any of [off, off+n) bytes, each once.
func (o *Origins) Of(off, n int64) []string {
	return o.of(off, n, false)
}

// Suspects returns whom to suspect if [off, off+n) bytes are wrong: who served any
// of them. If some were staged, it is only who brought those, and staged is true:
// what hosts served beside them shows when it is read again.
func (o *Origins) Suspects(off, n int64) (who []string, staged bool) {
	if who = o.of(off, n, true); len(who) > 0 {
		return who, true
	}
	return o.of(off, n, false), false
}

// of returns who served any of [off, off+n) bytes, or only of those that were
// staged.
func (o *Origins) of(off, n int64, staged bool) []string {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []string
	for _, s := range o.served {
		if s.off < off+n && off < s.end && (s.staged || !staged) && !slices.Contains(out, s.origin) {
			out = append(out, s.origin)
		}
	}
	return out
}

// AnyFailed reports whether there is a host that may serve the bytes later.
func (o *Origins) AnyFailed() bool {
	if o == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}

// Rejecter is the optional ability of a blob that has several hosts to prefer
// others to one that served wrong bytes. Decorators pass the call down.
type Rejecter interface {
	// Reject makes further reads of the blob try other hosts than origin,
	// as given to Origins.Served, first. It does not block on the network.
	Reject(origin string)
}

// Reject asks r to prefer other hosts to origin and reports whether r has the
// ability.
func Reject(r ReaderAt, origin string) bool {
	d, ok := r.(Rejecter)
	if ok {
		d.Reject(origin)
	}
	return ok
}

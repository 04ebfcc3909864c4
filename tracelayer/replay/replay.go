package replay

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/tracelayer"
)

const (
	// memory bounds the bytes of extents held at a time.
	memory = 8 << 20
	// defaultParallel is how many ranges are asked for at a time.
	defaultParallel = 16
)

// Target is where the extents of a layer go.
type Target struct {
	// Blob is the layer as its readers have it: what is read is cached. It is
	// nil for a layer that is to be left alone.
	Blob blob.Blob
	// Stage is the place below Blob that bytes from the data can be put into,
	// nil if there is nothing above it that verifies them.
	Stage *blob.Stage
	// Use, if not nil, is told what came, and watches what is read of it.
	Use *Use
}

// Stream is the data of a trace layer from some offset on.
type Stream interface {
	io.ReadCloser
	// SetWindow bounds the bytes that are in flight, and may be called at
	// any time.
	SetWindow(n int)
}

// Answered is what a Stream implements that knows how long the registry took
// from the request to the first byte.
type Answered interface{ FirstByte() time.Duration }

// Buffered is what a Stream implements that knows how many bytes have come that
// were not read.
type Buffered interface{ Unread() int }

// Job is what a replay is about.
type Job struct {
	// Plan is what to fetch, in order. It is valid (tracelayer.Plan.Validate).
	Plan *tracelayer.Plan
	// Targets are those of Plan.Layers.
	Targets []Target
	// Data opens the data from an offset on, nil if there are none. It tries
	// once.
	Data func(ctx context.Context, off int64) (Stream, error)
	// Local says that Data does not use the line.
	Local bool
	// Line is the way to the host of the targets, and of the data.
	Line *Line
	// Budget is how many bytes of extents may be fetched or kept, usually the
	// limit of a cache; 0 is no limit.
	Budget int64
	// Parallel bounds the ranges asked for at a time. Default 16.
	Parallel int
	// Observer, which may be nil, is told what happens.
	Observer Observer
}

// run is one Run.
type run struct {
	Job
	count  *counters           // on its own: marks of use keep it
	room   *semaphore.Weighted // of memory
	stages []*blob.Stage

	mu   sync.Mutex
	left []item // that the data did not help with
	// wrong counts extents whose data were not what the plan says.
	wrong atomic.Int64
}

// item is an extent to fetch.
type item struct {
	tracelayer.Extent
	at   int64 // in the data, if Stored > 0
	mark *mark // of its use; nil if nobody watches
}

func (i item) end() int64 { return i.Off + i.Size }

// Run fetches what job says and returns when that is done, or with the error of
// ctx. Nothing else is an error: what is wrong is skipped and counted.
func Run(ctx context.Context, job Job) (Stats, error) {
	began := time.Now()
	if job.Parallel <= 0 {
		job.Parallel = defaultParallel
	}
	if job.Line == nil {
		job.Line = NewLine()
	}
	if job.Observer == nil {
		job.Observer = nobody{}
	}
	r := &run{Job: job, count: new(counters), room: semaphore.NewWeighted(memory)}
	streamed, ranged := r.choose()
	if len(streamed)+len(ranged) > 0 {
		r.fetch(blob.WithPriority(ctx, blob.Background), streamed, ranged)
	}
	s := r.count.stats()
	s.Took = time.Since(began)
	return s, ctx.Err()
}

// fetch fetches what was chosen: by the data, by ranges, and by ranges what the
// data did not help with. It returns early only with ctx.
func (r *run) fetch(ctx context.Context, streamed, ranged []item) {
	for _, t := range r.Targets {
		if t.Stage != nil {
			r.stages = append(r.stages, t.Stage)
		}
	}
	var g errgroup.Group
	if len(streamed) > 0 {
		g.Go(func() error { r.stream(ctx, streamed); return nil })
	}
	if len(ranged) > 0 {
		g.Go(func() error { r.ranges(ctx, ranged); return nil })
	}
	_ = g.Wait() // nothing returns an error
	if len(r.left) > 0 {
		r.ranges(ctx, r.left)
	}
}

// leave has an item fetched by a range, later.
func (r *run) leave(i item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = append(r.left, i)
}

// urgent reports whether somebody waits for data that are expected.
func (r *run) urgent() bool {
	for _, s := range r.stages {
		if s.Waiting() > 0 {
			return true
		}
	}
	return false
}

// present reports whether all of an extent is there.
func (r *run) present(e tracelayer.Extent) bool {
	return blob.Present(r.Targets[e.Layer].Blob, e.Off, e.Size)
}

// arrived notes that an item is cached, all or a part of which was not before.
func (r *run) arrived(i item) {
	r.count.prefetched.add(i.Size)
	r.Observer.Prefetched(i.Size)
	i.mark.came(time.Now())
}

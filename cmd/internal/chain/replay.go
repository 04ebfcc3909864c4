package chain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/tracelayer"
	"github.com/reprise-containers/reprise/tracelayer/replay"
)

// fromTrace is the origin of bytes that a trace layer had.
const fromTrace = "trace layer"

// replayKey names what is replayed: the plan of a trace layer, for the images
// of a repository.
type replayKey struct {
	repository string
	trace      digest.Digest
	dir        string
}

// replaying is a replay under way.
type replaying struct {
	done    chan struct{}
	stats   replay.Stats
	err     error
	waiting int // callers that have the same in mind; of Chain.mu
}

// Replay fetches what plan says the image ref, of these layers, will read when
// it starts, and returns when that is done or ctx has ended. trace is where the
// data of the plan are; a trace without any will do. The plan is valid; its layers
// need not be all of the image's, and what is of others is skipped. Two calls for
// the same trace at a time are one.
func (c *Chain) Replay(ctx context.Context, ref string, trace backstore.TraceLayer, plan *tracelayer.Plan, layers []ocispec.Descriptor) (replay.Stats, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return replay.Stats{}, fmt.Errorf("parsing reference %q: %w", ref, err)
	}
	return c.once(ctx, replayKey{named.Name(), trace.Layer.Digest, trace.Dir}, func() (replay.Stats, error) {
		stats, err := c.replay(ctx, ref, trace, plan, layers)
		if err != nil {
			err = fmt.Errorf("replaying the start of %s: %w", ref, err)
		}
		return stats, err
	})
}

// once calls run, unless that is done for key already: then it waits for the end of
// it.
func (c *Chain) once(ctx context.Context, key replayKey, run func() (replay.Stats, error)) (replay.Stats, error) {
	for {
		c.mu.Lock()
		r := c.replays[key]
		if r == nil {
			r = &replaying{done: make(chan struct{})}
			c.replays[key] = r
			c.mu.Unlock()
			r.stats, r.err = run()
			c.mu.Lock()
			delete(c.replays, key)
			c.mu.Unlock()
			close(r.done)
			return r.stats, r.err
		}
		r.waiting++
		c.mu.Unlock()
		select {
		case <-r.done:
		case <-ctx.Done():
			return replay.Stats{}, ctx.Err()
		}
		if r.err == nil {
			return r.stats, nil
		}
		// It was given up by its caller, or failed: this one has its own try.
	}
}

func (c *Chain) replay(ctx context.Context, ref string, trace backstore.TraceLayer, plan *tracelayer.Plan, layers []ocispec.Descriptor) (replay.Stats, error) {
	h, err := c.hostOf(ref)
	if err != nil {
		return replay.Stats{}, err
	}
	defer h.replaying()()
	budget, giveBack := c.budget.take(plan.Size())
	defer giveBack()
	job := replay.Job{
		Plan: plan, Line: h.line, Budget: budget,
		Parallel: h.limit.Background(), Observer: c.cfg.Prefetch,
	}
	for _, l := range plan.Layers {
		t, err := c.target(ctx, ref, l, layers)
		if err != nil {
			return replay.Stats{}, err
		}
		job.Targets = append(job.Targets, t)
	}
	job.Data, job.Local = c.data(ref, trace, plan)
	return replay.Run(ctx, job)
}

// target returns where extents of l go, which is nowhere if the image has no
// such layer.
func (c *Chain) target(ctx context.Context, ref string, l tracelayer.PlanLayer, layers []ocispec.Descriptor) (replay.Target, error) {
	for _, desc := range layers {
		if desc.Digest != l.Digest || desc.Size != l.Size {
			continue
		}
		b, err := c.openShared(ref, desc)
		if err != nil {
			return replay.Target{}, err
		}
		t := replay.Target{Blob: b, Use: b.use}
		if t.Stage, err = b.stage(blob.WithPriority(ctx, blob.Background)); err != nil {
			return replay.Target{}, err
		}
		return t, nil
	}
	return replay.Target{}, nil
}

// data returns what opens the data of plan, nil if there are none, and whether
// they are on this node.
func (c *Chain) data(ref string, trace backstore.TraceLayer, plan *tracelayer.Plan) (open func(ctx context.Context, off int64) (replay.Stream, error), local bool) {
	size := plan.DataSize()
	if size == 0 {
		return nil, false
	}
	if trace.Dir != "" {
		path := filepath.Join(trace.Dir, tracelayer.DataName)
		if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() && st.Size() == size {
			return func(_ context.Context, off int64) (replay.Stream, error) { return openFile(path, off) }, true
		}
	}
	desc := trace.Layer.Descriptor()
	start := tracelayer.DataOffset(trace.Plan)
	if desc.Digest == "" || trace.Plan == (tracelayer.Member{}) || start < 0 || start > desc.Size-size {
		return nil, false
	}
	return func(ctx context.Context, off int64) (replay.Stream, error) {
		s, err := c.registry.Stream(ctx, ref, desc, start+off)
		if err != nil {
			return nil, err // and not a Stream that is nil
		}
		return s, nil
	}, false
}

// file is the data of a trace layer that was unpacked.
type file struct{ *os.File }

// openFile opens a file to be read from off on.
func openFile(path string, off int64) (replay.Stream, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, blob.Permanent(err)
	}
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return nil, blob.Permanent(errors.Join(err, f.Close()))
	}
	return file{f}, nil
}

// SetWindow implements replay.Stream: nothing is in flight.
func (file) SetWindow(int) {}

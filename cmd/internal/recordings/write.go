package recordings

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/fetchplan"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

var (
	errNothing = errors.New("nothing was read")
	errNoBlob  = errors.New("a layer has no blob that is known to be in a registry")
	// errPlanTime is why a plan was given up.
	errPlanTime = errors.New("making the plan took too long")
)

// write ends a recording and writes it.
func (r *Recordings) write(ctx context.Context, rec *recording) {
	trace := r.recorded(rec)
	result := Result{Ref: rec.img.Ref, Path: rec.target.path, Records: len(trace), Dropped: rec.recorder.Stats().Dropped}
	err := rec.target.finish(func(w io.Writer) error {
		if len(trace) == 0 {
			return errNothing
		}
		if err := r.plan(ctx, rec, trace, &result); err != nil {
			return err
		}
		_, err := w.Write(trace.Encode())
		return err
	})
	if ctx.Err() != nil && err != nil {
		err = fmt.Errorf("%w: %w", errStopped, err)
	}
	if err != nil {
		rec.fail(err)
	}
	r.end(rec, err)
	if err == nil {
		r.observer.Recorded(result)
	}
}

// plan makes the plan of a trace, if it can be made in the time that there is for
// that: a registry that does not answer must not cost the trace, nor others theirs.
func (r *Recordings) plan(ctx context.Context, rec *recording, trace tracelayer.Trace, result *Result) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.cfg.PlanTime, errPlanTime)
	defer cancel()
	// Whoever starts meanwhile goes first.
	result.Unplanned, err = r.writePlan(blob.WithPriority(ctx, blob.Background), rec, trace)
	switch {
	case err == nil:
	case errors.Is(err, errNoBlob):
		result.NoPlan = err
	case errors.Is(context.Cause(ctx), errPlanTime):
		result.NoPlan = fmt.Errorf("%w: %w", errPlanTime, err)
		return rec.target.remove(planSuffix, dataSuffix)
	default:
		return err
	}
	return nil
}

// writePlan makes the plan of a trace and its data, and writes both. It returns how
// many records are not in it.
func (r *Recordings) writePlan(ctx context.Context, rec *recording, trace tracelayer.Trace) (skipped int, err error) {
	layers, closeAll, err := r.layers(rec.img)
	defer closeAll()
	if err != nil {
		return 0, err
	}
	var plan *tracelayer.Plan
	err = rec.target.create(dataSuffix, func(w io.Writer) error {
		out := bufio.NewWriterSize(w, 1<<20)
		plan, skipped, err = fetchplan.Build(ctx, layers, trace, out)
		return errors.Join(err, out.Flush())
	})
	if err != nil {
		return 0, err
	}
	encoded, err := plan.Encode()
	if err != nil {
		return 0, err
	}
	return skipped, rec.target.create(planSuffix, func(w io.Writer) error {
		_, err := w.Write(encoded)
		return err
	})
}

// layers opens the blobs of an image as its registry has them. What the caller
// has is closed by the function returned.
func (r *Recordings) layers(img backstore.Image) (layers []fetchplan.Layer, closeAll func(), err error) {
	var files []*blob.File
	closeAll = func() {
		for _, f := range files {
			f.Close()
		}
	}
	for i, l := range img.Layers {
		layer := fetchplan.Layer{Digest: l.Digest, Size: l.Size}
		if layer.Table, err = labels.Chunks(l.Annotations); err != nil {
			return nil, closeAll, fmt.Errorf("layer %d: %w", i, err)
		}
		f, err := copyOf(l)
		switch {
		case err != nil:
			return nil, closeAll, err
		case f != nil:
			files = append(files, f)
			layer.Blob = f
		case l.Digest == "" || img.Ref == "":
			return nil, closeAll, fmt.Errorf("layer %d: %w", i, errNoBlob)
		default:
			if layer.Blob, err = r.open(img.Ref, l.Descriptor()); err != nil {
				return nil, closeAll, err
			}
		}
		layers = append(layers, layer)
	}
	return layers, closeAll, nil
}

// copyOf opens the local copy of the blob of l; nil if it has none. What
// containerd unpacked is not that but what is in it, and smaller.
func copyOf(l backstore.Layer) (*blob.File, error) {
	if l.Remote() || l.Digest == "" {
		return nil, nil
	}
	f, err := blob.OpenFile(l.File)
	if err != nil || f.Size() == l.Size {
		return f, err
	}
	return nil, f.Close()
}

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
)

// write ends a recording and writes it.
func (r *Recordings) write(ctx context.Context, rec *recording) {
	trace := rec.recorder.Stop()
	r.attacher.Recorded(rec.id)
	var without error // why there is no plan
	err := rec.target.finish(func(w io.Writer) error {
		if len(trace) == 0 {
			return errNothing
		}
		// Whoever starts meanwhile goes first.
		ctx := blob.WithPriority(ctx, blob.Background)
		if without = r.writePlan(ctx, rec, trace); without != nil && !errors.Is(without, errNoBlob) {
			return without
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
		r.observer.Recorded(rec.img.Ref, rec.target.path, len(trace), rec.recorder.Stats().Dropped, without)
	}
}

// writePlan makes the plan of a trace and its data, and writes both.
func (r *Recordings) writePlan(ctx context.Context, rec *recording, trace tracelayer.Trace) error {
	layers, closeAll, err := r.layers(rec.img)
	defer closeAll()
	if err != nil {
		return err
	}
	var plan *tracelayer.Plan
	err = rec.target.create(dataSuffix, func(w io.Writer) error {
		out := bufio.NewWriterSize(w, 1<<20)
		plan, _, err = fetchplan.Build(ctx, layers, trace, out)
		return errors.Join(err, out.Flush())
	})
	if err != nil {
		return err
	}
	encoded, err := plan.Encode()
	if err != nil {
		return err
	}
	return rec.target.create(planSuffix, func(w io.Writer) error {
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

package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/tracelayer"
)

// contents is what was read of a trace layer: a plan, or if it has none, what is
// in its slot.
type contents struct {
	trace backstore.TraceLayer // with what was found out about it
	plan  *tracelayer.Plan
	slot  []byte
}

// reader reads the trace of one image, once there is room for it.
type reader struct {
	source Source
	room   *semaphore.Weighted
	held   int64 // of room
}

// reserve waits until there is room for n bytes.
func (r *reader) reserve(ctx context.Context, n int64) error {
	if n <= smallPlan {
		return nil
	}
	// What was held before was that of a member there was no use for.
	r.release()
	n = min(n, planRoom)
	if err := r.room.Acquire(ctx, n); err != nil {
		return fmt.Errorf("waiting for memory for a trace: %w", err)
	}
	r.held = n
	return nil
}

// release gives back what is held.
func (r *reader) release() {
	if r.held > 0 {
		r.room.Release(r.held)
		r.held = 0
	}
}

// read reads the plan of the trace of img, and if it has none, its slot.
func (r *reader) read(ctx context.Context, img backstore.Image) (contents, error) {
	t := contents{trace: *img.Trace}
	var encoded []byte
	var err error
	if t.trace.Dir != "" {
		encoded, t.slot, err = r.readDir(ctx, t.trace)
	} else {
		encoded, t.slot, err = r.readBlob(ctx, img.Ref, &t.trace)
	}
	if err != nil || encoded == nil {
		return t, err
	}
	if t.plan, err = tracelayer.DecodePlan(encoded); err != nil {
		return t, fmt.Errorf("%w: %w", errInvalid, err)
	}
	return t, nil
}

// readDir reads the files of a trace layer that was unpacked.
func (r *reader) readDir(ctx context.Context, t backstore.TraceLayer) (plan, slot []byte, err error) {
	plan, err = r.readFile(ctx, filepath.Join(t.Dir, tracelayer.PlanName), tracelayer.MaxPlan)
	switch {
	case errors.Is(err, os.ErrNotExist):
		slot, err = r.readFile(ctx, filepath.Join(t.Dir, tracelayer.SlotName), tracelayer.MaxSlot)
		return nil, slot, err
	case err != nil:
		return nil, nil, err
	case t.Plan.Digest != "" && digest.FromBytes(plan) != t.Plan.Digest:
		return nil, nil, fmt.Errorf("reading %s: %w (%s)", tracelayer.PlanName, chain.ErrPlanDigest, t.Plan.Digest)
	}
	return plan, nil, nil
}

// readFile reads a regular file of at most limit bytes.
func (r *reader) readFile(ctx context.Context, path string, limit int64) ([]byte, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	switch {
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s: %w: it is no regular file", path, errInvalid)
	case st.Size() > limit:
		return nil, fmt.Errorf("%s: %w: it is larger than %d bytes", path, errInvalid, limit)
	}
	if err := r.reserve(ctx, st.Size()); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, st.Size()+1))
	if err == nil && int64(len(text)) > st.Size() {
		err = fmt.Errorf("%s: %w: it grew beyond %d bytes", path, errInvalid, st.Size())
	}
	return text, err
}

// readBlob reads from the blob of a trace layer. Where its plan is is looked up
// and noted in t if annotations do not say it.
func (r *reader) readBlob(ctx context.Context, ref string, t *backstore.TraceLayer) (plan, slot []byte, err error) {
	b, err := r.source.OpenTrace(ref, t.Layer.Descriptor())
	if err != nil {
		return nil, nil, err
	}
	if t.Plan.Size <= 0 {
		found, err := tracelayer.ReadLayer(ctx, b)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", errInvalid, err)
		}
		if found.Plan.Size <= 0 {
			slot, err = r.readSlot(ctx, b, found.Slot)
			return nil, slot, err
		}
		t.Plan = tracelayer.Member{Offset: found.Plan.Off, Size: found.Plan.Size}
	}
	if err := r.reserve(ctx, t.Plan.Size); err != nil {
		return nil, nil, err
	}
	plan, err = chain.ReadPlan(ctx, b, t.Plan)
	return plan, nil, err
}

// readSlot reads what lies in the slot of a trace layer.
func (r *reader) readSlot(ctx context.Context, b blob.Blob, at tracelayer.Span) ([]byte, error) {
	if err := r.reserve(ctx, at.Size); err != nil {
		return nil, err
	}
	slot := make([]byte, at.Size)
	if err := blob.ReadFull(ctx, b, slot, at.Off); err != nil {
		return nil, fmt.Errorf("reading the trace: %w", err)
	}
	return slot, nil
}

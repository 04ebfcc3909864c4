package traces

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cmd/internal/handover"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/tracelayer"
)

// Recording is a recorded start, as somebody gave it.
type Recording struct {
	// Name is what it was read from.
	Name string
	// Slot is a trace file, of which Trace is the content, or a priority list,
	// of which Paths are.
	Slot  []byte
	Trace tracelayer.Trace
	Paths []string
	// Plan and Data (nil if there are none) came with it and belong together.
	Plan *tracelayer.Plan
	Data blob.ReaderAt
	// Layers are those of the image that it was recorded with, bottom first,
	// without a trace layer; nil if nothing says which.
	Layers []tracelayer.PlanLayer
	// Member is where the plan lies in the trace layer that it was found in.
	Member tracelayer.Member
	// Time is when it was recorded, as far as that is known.
	Time time.Time
	// Notes say what was beside it and can not be used.
	Notes []string

	trust   bool   // data are not compared with the plan
	whole   *whole // nil: it was in files of its own
	closers []io.Closer
}

// whole is a trace layer that a recording was found in.
type whole struct {
	blob blob.Blob
	from *source.Content // nil: blob is a file
}

// Close closes its files.
func (r *Recording) Close() error {
	var errs []error
	for _, c := range r.closers {
		errs = append(errs, c.Close())
	}
	r.closers = nil
	return errors.Join(errs...)
}

// OpenRecording reads a trace file with plan and data beside it, where there are
// any (FILE.plan, FILE.data), a priority list, or a trace layer in a file. Of
// several files, which have to be trace files, it makes one trace.
func OpenRecording(ctx context.Context, files []string) (_ *Recording, err error) {
	var all []*Recording
	defer func() {
		if err != nil || len(all) > 1 {
			for _, r := range all {
				err = errors.Join(err, r.Close())
			}
		}
	}()
	for _, name := range files {
		r := &Recording{Name: name}
		all = append(all, r)
		if err := r.open(ctx, name); err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
	}
	switch len(all) {
	case 0:
		return nil, errors.New("no trace is given")
	case 1:
		return all[0], nil
	}
	return merged(all)
}

// merged returns one recording of several.
func merged(all []*Recording) (*Recording, error) {
	report, err := Merge(all, tracelayer.MergeConfig{})
	if err != nil {
		return nil, err
	}
	out := &Recording{Trace: report.Trace, Slot: report.Trace.Encode()}
	var names []string
	for _, r := range all {
		names = append(names, r.Name)
		if r.Layers != nil {
			out.Layers = r.Layers
		}
		if r.Time.After(out.Time) {
			out.Time = r.Time
		}
		out.Notes = append(out.Notes, r.Notes...)
	}
	out.Name = strings.Join(names, "+")
	return out, nil
}

// open reads what is in a file.
func (r *Recording) open(ctx context.Context, name string) error {
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	// Archives such as trace layers are unpacked with the time 0: it says nothing.
	if at := st.ModTime(); at.Unix() != 0 {
		r.Time = at
	}
	f, err := blob.OpenFile(name)
	if err != nil {
		return err
	}
	r.closers = append(r.closers, f)
	head := make([]byte, min(512, f.Size()))
	if err := blob.ReadFull(ctx, f, head, 0); err != nil {
		return err
	}
	if len(head) == 512 && string(head[257:262]) == "ustar" {
		return r.openLayer(ctx, f, nil)
	}
	if f.Size() > tracelayer.MaxSlot {
		return fmt.Errorf("%d bytes are more than a trace has", f.Size())
	}
	text := make([]byte, f.Size())
	if err := blob.ReadFull(ctx, f, text, 0); err != nil {
		return err
	}
	if err := r.decode(text); err != nil || r.Trace == nil {
		return err
	}
	return r.beside(ctx, name)
}

// decode takes text for what is in the slot of a trace layer.
func (r *Recording) decode(text []byte) (err error) {
	r.Slot = text
	r.Trace, err = tracelayer.Decode(text)
	switch {
	case err == nil && len(r.Trace) == 0:
		return errors.New("the trace has no reads")
	case !errors.Is(err, tracelayer.ErrFormat):
		return err
	}
	if r.Paths, err = tracelayer.ParseList(text); err != nil {
		return fmt.Errorf("neither a trace nor a list of files: %w", err)
	}
	if len(r.Paths) == 0 {
		return errors.New("there is neither a trace nor a list of files in it")
	}
	return nil
}

// beside reads plan and data that the recorder wrote beside the trace file name.
// What is damaged is as good as what is not there.
func (r *Recording) beside(ctx context.Context, name string) error {
	text, err := os.ReadFile(name + handover.Plan)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	plan, err := tracelayer.DecodePlan(text)
	if err != nil {
		r.note("%s.plan is no use and made anew: %v", name, err)
		return nil
	}
	r.Plan, r.Layers = plan, plan.Layers
	if plan.DataSize() == 0 {
		return nil
	}
	f, err := blob.OpenFile(name + handover.Data)
	if err == nil {
		r.closers = append(r.closers, f)
		err = verify(ctx, plan, f)
	}
	if ctx.Err() != nil {
		return err
	}
	if err != nil {
		r.note("%s.data are no use and made anew: %v", name, err)
		r.Plan = nil
		return nil
	}
	r.Data = f
	return nil
}

// verify compares data with the sums of their plan.
func verify(ctx context.Context, plan *tracelayer.Plan, data blob.ReaderAt) error {
	if want := plan.DataSize(); data.Size() != want {
		return fmt.Errorf("there are %d bytes of data, the plan says %d", data.Size(), want)
	}
	at := int64(0)
	for i, e := range plan.Extents {
		p := make([]byte, e.Stored)
		if err := blob.ReadFull(ctx, data, p, at); err != nil {
			return err
		}
		at += e.Stored
		if e.Stored == 0 {
			continue
		}
		got, err := e.Unpack(p)
		if err == nil && sha256.Sum256(got) != e.Sum {
			err = errors.New("they are not what the plan has the sum of")
		}
		if err != nil {
			return fmt.Errorf("extent %d: %w", i, err)
		}
	}
	return nil
}

// OpenLayer reads slot and plan of a trace layer, and compares its data with the
// plan if verify is set. What is wrong with plan or data is in the Notes, and
// neither is in the Recording then.
func OpenLayer(ctx context.Context, b blob.Blob, verify bool) (*Recording, error) {
	r := &Recording{Name: blob.Name(b), trust: !verify}
	return r, r.openLayer(ctx, b, nil)
}

// openLayer reads the members of a trace layer, which is from an image unless
// from is nil.
func (r *Recording) openLayer(ctx context.Context, b blob.Blob, from *source.Content) error {
	found, err := tracelayer.ReadLayer(ctx, b)
	if err != nil {
		return err
	}
	slot, err := section(ctx, b, found.Slot)
	if err == nil {
		err = r.decode(slot)
	}
	if err != nil || found.Plan == (tracelayer.Span{}) {
		return err
	}
	text, err := section(ctx, b, found.Plan)
	if err != nil {
		return err
	}
	plan, err := tracelayer.DecodePlan(text)
	if err != nil {
		r.note("the plan of trace layer %s is no use: %v", r.Name, err)
		return nil
	}
	r.Plan, r.Layers = plan, plan.Layers
	r.Member = tracelayer.Member{Offset: found.Plan.Off, Size: found.Plan.Size, Digest: digest.FromBytes(text)}
	if n := plan.DataSize(); n != 0 {
		r.Data = blob.Section(b, found.Data.Off, found.Data.Size)
		if found.Data.Size != n {
			err = fmt.Errorf("there are %d bytes of them, the plan says %d", found.Data.Size, n)
		} else if !r.trust {
			err = verify(ctx, plan, r.Data)
		}
	}
	if ctx.Err() != nil {
		return err
	}
	if err != nil {
		r.note("the data of trace layer %s are no use: %v", r.Name, err)
		r.Plan, r.Data = nil, nil
		return nil
	}
	// Others may lay the members out as they like, nodes expect one way.
	if r.Data == nil || found.Data.Off == tracelayer.DataOffset(r.Member) {
		r.whole = &whole{b, from}
	}
	return nil
}

// of says which layers the image has that the recording was found with. A plan of
// others is no use.
func (r *Recording) of(layers []tracelayer.PlanLayer) {
	r.Layers = layers
	if r.Plan != nil && Differences(r.Layers, r.Plan.Layers) != "" {
		r.note("the plan in %s is no use: it is of other layers than the image has", r.Name)
		r.Plan, r.Data, r.whole = nil, nil, nil
	}
}

func (r *Recording) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func section(ctx context.Context, b blob.ReaderAt, at tracelayer.Span) ([]byte, error) {
	p := make([]byte, at.Size)
	return p, blob.ReadFull(ctx, b, p, at.Off)
}

// reader returns the bytes of b in order.
func reader(ctx context.Context, b blob.ReaderAt) io.Reader {
	return io.NewSectionReader(readerAt{ctx, b}, 0, b.Size())
}

// readerAt is a blob for as long as a call lasts.
type readerAt struct {
	ctx context.Context //nolint:containedctx // see above
	b   blob.ReaderAt
}

// ReadAt implements io.ReaderAt.
func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r.b.ReadAt(r.ctx, p, off) }

// planText encodes the plan, without the data if they are not wanted.
func planText(p *tracelayer.Plan, data bool) ([]byte, error) {
	if !data {
		bare := *p
		bare.Extents = slices.Clone(p.Extents)
		for i := range bare.Extents {
			bare.Extents[i].Stored = 0
		}
		p = &bare
	}
	return p.Encode()
}

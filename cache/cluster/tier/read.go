package tier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/remote/blob/stall"
)

// frames are buffers for one frame.
var frames = sync.Pool{New: func() any { return new([frameSize]byte) }}

// Open reads n bytes from off of an object, which must be in it. Each byte that is
// read was verified; the first chunk is there when Open returns. Errors, of Open or of
// reading: fs.ErrNotExist, ErrDamaged (the object is of no use: Remove it),
// ErrUnreadable, ErrAway, ErrSilent, io.ErrUnexpectedEOF if the store's answer was cut, and the store's own.
// ctx ends reading too. The reader must be closed; it is also an io.WriterTo. Nothing
// is asked if n is 0.
func (t *Tier) Open(ctx context.Context, d digest.Digest, o Object, off, n int64) (io.ReadCloser, error) {
	name, err := t.names.nameOf(d, o.Generation)
	if err != nil {
		return nil, err
	}
	if o.Size < 0 || o.Size > maxSize || off < 0 || n < 0 || n > o.Size-off {
		return nil, fmt.Errorf("opening %s: %d bytes at %d of %d", name, n, off, o.Size)
	}
	if n == 0 {
		return io.NopCloser(strings.NewReader("")), nil
	}
	r := &reader{tier: t, name: name, size: o.Size, index: off / chunkSize, skip: int(off % chunkSize), left: n}
	if r.seal, err = t.sealerOf(d, o); err != nil {
		return nil, err
	}
	if r.pass, err = t.reading.enter(); err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	t.counts.reads.Add(1)
	r.caller, r.watch = ctx, stall.New(ctx, t.timeout)
	r.watch.Start()
	if err := r.open(off, n); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// reader is a part of a blob.
type reader struct {
	tier   *Tier
	name   string
	seal   sealer
	size   int64 // of the blob
	pass   *pass
	watch  *stall.Watch
	caller context.Context //nolint:containedctx // reading ends with it, like that of an HTTP answer

	src   io.ReadCloser
	index int64 // of the next chunk of src
	skip  int   // bytes of the next chunk that are not wanted
	left  int64 // bytes that are wanted, without those in rest
	frame *[frameSize]byte
	rest  []byte // of frame: verified, not given out yet
	err   error  // what broke reading
}

// open begins with the first chunk.
func (r *reader) open(off, n int64) error {
	from := off / chunkSize * frameSize
	to := min(((off+n-1)/chunkSize+1)*frameSize, objectSize(r.size))
	src, size, err := r.tier.store.Open(r.watch.Context(), r.name, from, to-from)
	if err != nil {
		return r.broken(err)
	}
	r.src = src
	if size != objectSize(r.size) {
		return r.damaged(fmt.Sprintf("it has %d bytes, not %d", size, objectSize(r.size)))
	}
	r.frame = frames.Get().(*[frameSize]byte)
	if err := r.next(); err != nil {
		return err
	}
	r.pass.worked()
	return nil
}

// next reads the next frame; what is wanted of it is rest then.
func (r *reader) next() error {
	size := chunkAt(r.size, r.index)
	frame := r.frame[:size+tailSize]
	if err := r.fill(frame); err != nil {
		return err
	}
	return r.verify(frame[:size], frame[size:], func(chunk []byte) { r.rest = chunk })
}

// into reads the next frame's chunk, all of which is wanted, to p.
func (r *reader) into(p []byte) error {
	var tail [tailSize]byte
	if err := r.fill(p); err != nil {
		return err
	}
	if err := r.fill(tail[:]); err != nil {
		return err
	}
	return r.verify(p, tail[:], func([]byte) {})
}

// fill reads what comes next, all of p.
func (r *reader) fill(p []byte) error {
	r.watch.Start()
	err := r.watch.Context().Err() // a file does not know of it
	if err == nil {
		_, err = io.ReadFull(r.src, p)
	}
	if err != nil {
		return r.broken(err)
	}
	return nil
}

// verify looks at a frame and gives what is wanted of it.
func (r *reader) verify(chunk, tail []byte, give func([]byte)) error {
	r.watch.Stop()
	if !r.seal.opens(tail, chunk, r.index) {
		return r.damaged(fmt.Sprintf("chunk %d", r.index))
	}
	chunk = chunk[r.skip:]
	chunk = chunk[:min(int64(len(chunk)), r.left)]
	r.index, r.skip, r.left = r.index+1, 0, r.left-int64(len(chunk))
	r.tier.counts.readBytes.Add(uint64(len(chunk)))
	give(chunk)
	return nil
}

// Read implements io.Reader. What p has beyond the result is not verified.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if r.left == 0 {
			return 0, io.EOF
		}
		size := chunkAt(r.size, r.index)
		if r.skip == 0 && len(p) >= size && r.left >= int64(size) {
			if err := r.into(p[:size]); err != nil {
				return 0, err
			}
			return size, nil
		}
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// WriteTo implements io.WriterTo.
func (r *reader) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if len(r.rest) > 0 {
			n, err := w.Write(r.rest)
			r.rest = r.rest[n:]
			total += int64(n)
			if err != nil {
				return total, err
			}
		}
		if r.err != nil {
			return total, r.err
		}
		if r.left == 0 {
			return total, nil
		}
		if err := r.next(); err != nil {
			return total, err
		}
	}
}

// Close implements io.Closer.
func (r *reader) Close() error {
	r.pass.left()
	var err error
	if r.src != nil {
		err = r.src.Close()
		r.src = nil
	}
	r.watch.End()
	if r.frame != nil {
		frames.Put(r.frame)
		r.frame, r.rest = nil, nil
	}
	if r.err == nil {
		r.err = fs.ErrClosed
	}
	return err
}

// damaged ends reading.
func (r *reader) damaged(what string) error {
	r.pass.worked()
	r.tier.counts.damaged.Add(1)
	r.err = fmt.Errorf("reading %s: %w: %s", r.name, ErrDamaged, what)
	return r.err
}

// broken ends reading by an error of the store.
func (r *reader) broken(err error) error {
	err = silence(r.watch.Explain(err))
	switch {
	case r.caller.Err() != nil:
		err = context.Cause(r.caller)
		r.pass.left()
	case errors.Is(err, fs.ErrNotExist):
		r.pass.worked()
	case errors.Is(err, ErrUnreadable):
		r.pass.worked()
		r.tier.counts.readErrors.Add(1)
	default:
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: %s", io.ErrUnexpectedEOF, err) //nolint:errorlint // it is no end
		}
		r.pass.failed(err)
		r.tier.counts.readErrors.Add(1)
	}
	r.err = fmt.Errorf("reading %s: %w", r.name, err)
	return r.err
}

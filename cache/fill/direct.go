package fill

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/remote/blob"
)

// direct is the rest of a blob straight from a reader's own source.
type direct struct {
	r      *Reader
	body   io.ReadCloser
	check  digest.Verifier // has seen what the reader has had, if it reads the whole
	last   []byte          // the last bytes of a whole blob, once it was found right
	came   int             // bytes of body
	failed int             // answers in a row that brought too little
}

// rest is what a fetch has left of an answer when the cache took no more of it, for
// the reader it was begun for to go on with.
type rest struct {
	off  int64 // where in the blob it begins
	buf  *[piece]byte
	n    int // bytes in buf, which come before those of body
	body io.ReadCloser
}

func (t *rest) close() {
	t.body.Close()
	pieces.Put(t.buf)
}

// take keeps t for when the reader goes on by itself, unless that is not to be.
func (r *Reader) take(t *rest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone || r.quiet || r.rest != nil {
		return false
	}
	r.rest = t
	return true
}

// given returns what take kept.
func (r *Reader) given() *rest {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.rest
	r.rest = nil
	return t
}

// restBody is a rest as the body of an answer.
type restBody struct {
	io.Reader
	rest *rest
	stop func() bool // ends the watch of the reader's context
}

func (b *restBody) Close() error {
	b.stop()
	b.rest.close()
	return nil
}

// continued returns the rest of the answer to the reader's fetch, from off on; nil if
// there is none.
func (r *Reader) continued(off int64) io.ReadCloser {
	t := r.given()
	if t == nil {
		return nil
	}
	b := &restBody{
		Reader: io.MultiReader(bytes.NewReader(t.buf[:t.n]), t.body), rest: t,
		stop: context.AfterFunc(r.ctx, func() { t.body.Close() }),
	}
	// The fetch may have begun earlier than the reader, see Config.Rounding.
	if _, err := io.CopyN(io.Discard, b, off-t.off); off < t.off || err != nil {
		b.Close()
		return nil
	}
	return b
}

func (d *direct) close() {
	if d.body != nil {
		d.body.Close()
	}
}

// readStraight reads from the reader's own source.
func (r *Reader) readStraight(p []byte) (int, error) {
	d := r.straight
	if r.whole && d.check == nil {
		if err := d.begin(); err != nil {
			return 0, err
		}
	}
	if r.whole && r.pos >= r.end-tail {
		return d.finish(p)
	}
	end := r.end
	if r.whole {
		end -= tail
	}
	n, err := d.read(p[:min(int64(len(p)), end-r.pos)], r.pos)
	if d.check != nil {
		_, _ = d.check.Write(p[:n])
	}
	r.pos += int64(n)
	return n, err
}

// begin hashes what the reader had from the cache.
func (d *direct) begin() error {
	r := d.r
	d.check = r.x.Descriptor().Digest.Verifier()
	buf := pieces.Get().(*[piece]byte)
	defer pieces.Put(buf)
	for off := int64(0); off < r.pos; {
		n, err := r.x.ReadNew(buf[:min(piece, r.pos-off)], off)
		if err != nil && err != io.EOF { //nolint:errorlint // as io.ReaderAt has it
			return err
		}
		_, _ = d.check.Write(buf[:n])
		off += int64(n)
	}
	return nil
}

// finish returns the last bytes of a whole blob, once the whole was found right.
func (d *direct) finish(p []byte) (int, error) {
	r := d.r
	if d.last == nil {
		last := make([]byte, r.end-r.pos)
		for got := 0; got < len(last); {
			n, err := d.read(last[got:], r.pos+int64(got))
			if got += n; err != nil {
				return 0, err
			}
		}
		_, _ = d.check.Write(last)
		if !d.check.Verified() {
			r.g.count.mismatches.Add(1)
			return 0, r.mismatch()
		}
		d.last = last
	}
	n := copy(p, d.last[int64(len(d.last))-(r.end-r.pos):])
	r.pos += int64(n)
	return n, nil
}

// read reads some bytes at off, by a request for all from there on if none is under
// way.
func (d *direct) read(p []byte, off int64) (int, error) {
	r := d.r
	for {
		if d.body == nil {
			d.body = r.continued(off)
		}
		if d.body == nil {
			r.g.count.fetches.Add(1)
			body, err := r.src.Open(r.ctx, off, r.end-off)
			if err != nil {
				if err := d.failing(err); err != nil {
					return 0, err
				}
				continue
			}
			d.body, d.came = body, 0
		}
		n, err := d.body.Read(p)
		r.g.count.bytes.Add(int64(n))
		if n > 0 {
			if d.came += n; d.came >= enough {
				d.failed = 0
			}
			return n, nil
		}
		if err == nil {
			continue
		}
		d.body.Close()
		d.body = nil
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err := d.failing(err); err != nil {
			return 0, err
		}
	}
}

// failing waits before another attempt after one that ended with err, or returns why
// there is none.
func (d *direct) failing(err error) error {
	r := d.r
	if d.failed++; d.failed >= r.g.cfg.Attempts || blob.IsPermanent(err) {
		return err
	}
	return r.backOff(d.failed)
}

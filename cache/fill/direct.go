package fill

import (
	"errors"
	"hash"
	"io"

	"github.com/reprise-containers/reprise/remote/blob"
)

// direct is the rest of a blob straight from a reader's own source.
type direct struct {
	r      *Reader
	body   io.ReadCloser
	sum    hash.Hash // of what the reader has had, if it reads the whole
	last   []byte    // the last bytes of a whole blob, once it was found right
	failed int
}

func (d *direct) close() {
	if d.body != nil {
		d.body.Close()
	}
}

// readStraight reads from the reader's own source.
func (r *Reader) readStraight(p []byte) (int, error) {
	d := r.straight
	if r.whole && d.sum == nil {
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
	if d.sum != nil {
		_, _ = d.sum.Write(p[:n])
	}
	r.pos += int64(n)
	return n, err
}

// begin hashes what the reader had from the cache.
func (d *direct) begin() error {
	r := d.r
	d.sum = r.x.Descriptor().Digest.Algorithm().Hash()
	buf := pieces.Get().(*[piece]byte)
	defer pieces.Put(buf)
	for off := int64(0); off < r.pos; {
		n, err := r.x.ReadAt(buf[:min(piece, r.pos-off)], off)
		if err != nil && err != io.EOF { //nolint:errorlint // as io.ReaderAt has it
			return err
		}
		_, _ = d.sum.Write(buf[:n])
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
		_, _ = d.sum.Write(last)
		if string(d.sum.Sum(nil)) != string(decoded(r.x.Descriptor().Digest)) {
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
			r.g.count.fetches.Add(1)
			body, err := r.src.Open(r.ctx, off, r.end-off)
			if err != nil {
				if d.failed++; d.failed >= r.g.cfg.Attempts || blob.IsPermanent(err) || r.ctx.Err() != nil {
					return 0, err
				}
				continue
			}
			d.body = body
		}
		n, err := d.body.Read(p)
		r.g.count.bytes.Add(int64(n))
		if n > 0 {
			d.failed = 0
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
		if d.failed++; d.failed >= r.g.cfg.Attempts || r.ctx.Err() != nil {
			return 0, err
		}
	}
}

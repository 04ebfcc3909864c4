package push

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/remote/blob"
)

const (
	// pieceSize is how much is read of a source by one request, in bytes.
	pieceSize = 4 << 20
	// pieces is how many of them are read ahead: enough to keep a line of
	// 100 Mbyte/s with 100 ms busy.
	pieces = 4
)

// stream is a blob of another registry as the source of an upload: read once from
// the begin to the end, or again from where an upload broke. What it reads is
// hashed, and the last bytes are only given out if the whole is right; a registry
// must check that, too.
type stream struct {
	blob   blob.Blob
	bar    *terminal.Bar
	ctx    context.Context //nolint:containedctx // io.ReaderAt has none; the stream ends with the call that made it
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	ahead   map[int64]*piece // by number
	hashed  int64            // bytes
	sum     digest.Verifier
	lost    error // why the source can't be read
	stopped bool
}

// piece is a part of the blob; data and err are set when done is closed.
type piece struct {
	done chan struct{}
	data []byte
	err  error
}

func newStream(ctx context.Context, b blob.Blob, bar *terminal.Bar) *stream {
	s := &stream{blob: b, bar: bar, ahead: map[int64]*piece{}, sum: b.Descriptor().Digest.Verifier()}
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s
}

// close ends all reads. An upload that was given up may still try some.
func (s *stream) close() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
}

// failure returns why the source could not be read, or nil.
func (s *stream) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// ReadAt implements io.ReaderAt. What it reads may lie in several pieces.
func (s *stream) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if at >= s.blob.Size() {
			return done, io.EOF
		}
		n, err := s.read(p[done:], at)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

func (s *stream) read(p []byte, off int64) (int, error) {
	number := off / pieceSize
	part, err := s.want(number)
	if err != nil {
		return 0, err
	}
	select {
	case <-part.done:
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if part.err != nil {
		return 0, s.lose(part.err)
	}
	n := copy(p, part.data[off-number*pieceSize:])
	if err := s.hash(p[:n], off); err != nil {
		return 0, s.lose(err)
	}
	s.bar.Set(off + int64(n))
	return n, nil
}

// lose notes an error of the source, which no further attempt to upload cures:
// the source has been asked often enough. mu is held.
func (s *stream) lose(err error) error {
	if s.lost == nil && !s.stopped && s.ctx.Err() == nil {
		s.lost = err
	}
	return blob.Permanent(err)
}

// hash takes what follows the bytes hashed so far. mu is held.
func (s *stream) hash(p []byte, off int64) error {
	end := off + int64(len(p))
	if off > s.hashed || end <= s.hashed {
		return nil
	}
	_, _ = s.sum.Write(p[s.hashed-off:])
	s.hashed = end
	if end == s.blob.Size() && !s.sum.Verified() {
		return fmt.Errorf("what %s serves does not have the digest %s", blob.Name(s.blob), s.blob.Descriptor().Digest)
	}
	return nil
}

// want returns a piece, being read, and has those behind it read, too.
func (s *stream) want(number int64) (*piece, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, blob.Permanent(errors.New("the upload is over"))
	}
	for n := range s.ahead {
		if n < number-1 || n >= number+pieces {
			delete(s.ahead, n)
		}
	}
	for n := number; n < number+pieces && n*pieceSize < s.blob.Size(); n++ {
		if s.ahead[n] == nil {
			part := &piece{done: make(chan struct{})}
			s.ahead[n] = part
			s.wg.Go(func() { s.fetch(part, n) })
		}
	}
	return s.ahead[number], nil
}

func (s *stream) fetch(part *piece, number int64) {
	defer close(part.done)
	off := number * pieceSize
	data := make([]byte, min(pieceSize, s.blob.Size()-off))
	if part.err = blob.ReadFull(s.ctx, s.blob, data, off); part.err == nil {
		part.data = data
	}
}

package tier

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/remote/blob/stall"
)

// Put stores the o.Size bytes of r as a generation, which is nobody else's. Errors:
// ErrContent if they have not the digest, fs.ErrExist if the generation is there
// (whole), ErrAway, ErrSilent, those of r and of the store. After an error of the store
// there may be an object all the same, if its answer was lost; it is whole then.
func (t *Tier) Put(ctx context.Context, d digest.Digest, o Object, r io.ReaderAt) error {
	name, err := t.names.nameOf(d, o.Generation)
	if err != nil {
		return err
	}
	if o.Size < 0 || o.Size > maxSize {
		return fmt.Errorf("storing %s: %d bytes", name, o.Size)
	}
	seal, err := t.sealerOf(d, o)
	if err != nil {
		return err
	}
	p, err := t.writing.enter()
	if err != nil {
		return fmt.Errorf("storing %s: %w", name, err)
	}
	t.counts.puts.Add(1)
	f := &framer{source: r, digest: d, hash: d.Algorithm().Hash(), size: o.Size, seal: seal}
	_, _ = rand.Read(f.salt[:]) // does not fail
	err = watched(ctx, max(t.timeout, writeTimeout), func(w *stall.Watch) error {
		f.watch = w
		return t.store.Create(w.Context(), name, f, objectSize(o.Size))
	})
	switch {
	case f.err != nil && !errors.Is(f.err, io.EOF): // not the store's
		p.left()
		err = f.err
	case errors.Is(err, fs.ErrExist):
		p.worked()
	default:
		p.tell(ctx, err)
	}
	if err != nil {
		t.counts.putErrors.Add(1)
		return fmt.Errorf("storing %s: %w", name, err)
	}
	t.counts.putBytes.Add(uint64(o.Size))
	return nil
}

// framer reads a blob as the frames of an object. Its last frame comes only if the
// blob has its digest.
type framer struct {
	source io.ReaderAt
	digest digest.Digest
	hash   hash.Hash
	size   int64
	seal   sealer
	salt   [saltSize]byte
	watch  *stall.Watch

	index int64
	frame []byte // for those that do not fit where they are wanted
	rest  []byte // of frame
	err   error
}

// Read implements io.Reader.
func (f *framer) Read(p []byte) (n int, err error) {
	f.watch.Start()
	for n < len(p) {
		if len(f.rest) > 0 {
			c := copy(p[n:], f.rest)
			f.rest, n = f.rest[c:], n+c
			continue
		}
		if f.err == nil && f.index == framesOf(f.size) {
			f.err = io.EOF
			f.watch.Extend(completeTimeout)
		}
		if f.err != nil {
			break
		}
		size := chunkAt(f.size, f.index) + tailSize
		if len(p)-n >= size {
			if f.err = f.next(p[n : n+size]); f.err == nil {
				n += size
			}
			continue
		}
		if f.frame == nil {
			f.frame = make([]byte, frameSize)
		}
		if f.err = f.next(f.frame[:size]); f.err == nil {
			f.rest = f.frame[:size]
		}
	}
	if n > 0 {
		return n, nil
	}
	return 0, f.err
}

// next makes the next frame.
func (f *framer) next(frame []byte) error {
	chunk, tail := frame[:len(frame)-tailSize], frame[len(frame)-tailSize:]
	if n, err := f.source.ReadAt(chunk, f.index*chunkSize); n < len(chunk) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("reading the blob at %d: %w", f.index*chunkSize, err)
	}
	_, _ = f.hash.Write(chunk)
	if f.index == framesOf(f.size)-1 {
		if got := digest.NewDigest(f.digest.Algorithm(), f.hash); got != f.digest {
			return fmt.Errorf("%w: it is %s", ErrContent, got)
		}
	}
	copy(tail, f.salt[:])
	f.seal.seal(tail, chunk, f.index)
	f.index++
	return nil
}

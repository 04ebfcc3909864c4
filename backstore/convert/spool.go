package convert

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/reprise-containers/reprise/backstore/erofs"
)

const (
	// maxRuns is up to how many stretches of zeros are left out of a layer:
	// each costs a record of its index, of which there can be a million.
	maxRuns = 400_000
	// longZeros is how many blocks of zeros are left out all the same: what
	// an archive can say in a few bytes must not fill the disk.
	longZeros = copyBlocks / 4
)

// copyBlocks is how much content is moved at once.
const copyBlocks = 256

// spool is a temporary file with the content of regular files, without blocks
// of zeros, in the order of the device.
type spool struct {
	f    *os.File
	w    *bufio.Writer
	end  int64 // of the file, bytes
	runs []run
	buf  []byte
}

// run is a stretch of blocks of the device and where they are in the file.
type run struct {
	block, blocks uint32
	off           int64 // bytes
}

func newSpool(dir string) (*spool, error) {
	f, err := os.CreateTemp(dir, "reprise-layer-")
	if err != nil {
		return nil, err
	}
	// Nobody needs its name, and what has none can't be left behind.
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return &spool{f: f, w: bufio.NewWriterSize(f, 1<<20), buf: make([]byte, copyBlocks*erofs.BlockSize)}, nil
}

// add copies size bytes of r to the blocks from start on.
func (s *spool) add(r io.Reader, start uint32, size int64) error {
	for size > 0 {
		n := int(min(size, int64(len(s.buf))))
		if _, err := io.ReadFull(r, s.buf[:n]); err != nil {
			return err
		}
		size -= int64(n)
		padded := (n + erofs.BlockSize - 1) / erofs.BlockSize * erofs.BlockSize
		clear(s.buf[n:padded])
		if err := s.blocks(start, s.buf[:padded]); err != nil {
			return fmt.Errorf("writing a temporary file: %w", err)
		}
		start += uint32(padded / erofs.BlockSize)
	}
	return nil
}

//nolint:gochecknoglobals // a constant that Go can't express
var zeros [erofs.BlockSize]byte

// blocks adds whole blocks, those that have something in them.
func (s *spool) blocks(at uint32, p []byte) error {
	for len(p) > 0 {
		if z := leading(p, true); z >= longZeros || z > 0 && len(s.runs) < maxRuns {
			at, p = at+uint32(z), p[z*erofs.BlockSize:]
			continue
		}
		n := max(leading(p, false), leading(p, true)) // blocks to store
		if _, err := s.w.Write(p[:n*erofs.BlockSize]); err != nil {
			return err
		}
		s.extend(at, uint32(n))
		at, p = at+uint32(n), p[n*erofs.BlockSize:]
	}
	return nil
}

// leading returns how many blocks at the start of p are of zeros, or are not.
func leading(p []byte, zero bool) (n int) {
	for n*erofs.BlockSize < len(p) && bytes.Equal(p[n*erofs.BlockSize:][:erofs.BlockSize], zeros[:]) == zero {
		n++
	}
	return n
}

// extend enters blocks that were written to the end of the file.
func (s *spool) extend(at, n uint32) {
	if k := len(s.runs) - 1; k >= 0 && s.runs[k].block+s.runs[k].blocks == at {
		s.runs[k].blocks += n
	} else {
		s.runs = append(s.runs, run{at, n, s.end})
	}
	s.end += int64(n) * erofs.BlockSize
}

// finish ends writing.
func (s *spool) finish() error {
	if err := s.w.Flush(); err != nil {
		return fmt.Errorf("writing a temporary file: %w", err)
	}
	s.w, s.buf = nil, nil
	return nil
}

// Close gives the disk space back.
func (s *spool) Close() error { return s.f.Close() }

package files

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// Content begins with a header: magic, the load's seed, worker and number.
const (
	magic      = 0x4649_4c45_5f4c_4f41
	headerSize = 24
	mostBytes  = 256 << 10
)

// content makes the content of a file.
func content(seed uint64, w, seq uint32) []byte {
	r := rand.New(rand.NewPCG(seed, uint64(w)<<32|uint64(seq)))
	p := make([]byte, headerSize, headerSize+mostBytes)
	le := binary.LittleEndian
	le.PutUint64(p, magic)
	le.PutUint64(p[8:], seed)
	le.PutUint32(p[16:], w)
	le.PutUint32(p[20:], seq)
	for range r.Uint64N(1<<r.IntN(16)) % (mostBytes / 8) {
		p = le.AppendUint64(p, r.Uint64())
	}
	return p
}

// write writes a new file and makes it durable, if that is asked for.
func write(name string, p []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(p)
	return errors.Join(err, f.Sync(), f.Close())
}

// identify reads a file, from the disk if its pages are clean, and returns the
// number of its content.
func (w *worker) identify(name string) (uint32, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return 0, fmt.Errorf("dropping pages of %s: %w", name, err)
	}
	p, err := io.ReadAll(f)
	if err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	if len(p) < headerSize || le.Uint64(p) != magic || le.Uint64(p[8:]) != w.load.seed || le.Uint32(p[16:]) != w.id {
		return 0, &FaultError{fmt.Sprintf("%s holds %d bytes that are none of this load's: %.32x", name, len(p), p)}
	}
	seq := le.Uint32(p[20:])
	want := content(w.load.seed, w.id, seq)
	for i := range max(len(p), len(want)) {
		if i >= len(p) || i >= len(want) || p[i] != want[i] {
			return 0, &FaultError{fmt.Sprintf("%s holds content %d, but differs at byte %d of %d, and has %d", name, seq, i, len(want), len(p))}
		}
	}
	return seq, nil
}

package image

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
)

// sizedLayers is the number of layers of Sized.
const sizedLayers = 4

// sizedFile is the average size of a file of Sized in bytes.
const sizedFile = 64 << 10

// Sized is an image of four layers with files of the given number of bytes in
// all, 64 KiB on average, which compress to about a half.
func Sized(size int64) Layered {
	i := Layered{Name: fmt.Sprintf("sized-%d", size>>20), Version: 1, Args: []string{"/none"}}
	for n := range sizedLayers {
		s := Step{Write: func(_ context.Context, a Archive) error { return sized(a, n, size/sizedLayers) }}
		if n%2 == 1 {
			s.Compression = Zstd
		}
		i.Steps = append(i.Steps, s)
	}
	return i
}

// sized adds files of together size bytes; layer n has directories of its own.
func sized(a Archive, n int, size int64) error {
	random := rand.New(rand.NewPCG(uint64(n), 0))
	for i := 0; size > 0; i++ {
		dir := fmt.Sprintf("sized/%d/%03d", n, i/100)
		if i%100 == 0 {
			if err := a.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: epoch}); err != nil {
				return err
			}
		}
		length := min(size, 1+random.Int64N(2*sizedFile))
		size -= length
		name := fmt.Sprintf("%s/%02d", dir, i%100)
		if err := a.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: length, ModTime: epoch}); err != nil {
			return err
		}
		if err := fill(a, name, length); err != nil {
			return fmt.Errorf("adding %s: %w", name, err)
		}
	}
	return nil
}

// fill writes blocks whose first half is random and whose second repeats it.
func fill(w io.Writer, seed string, size int64) error {
	random := rand.NewChaCha8(sha256.Sum256([]byte(seed)))
	b := bufio.NewWriterSize(w, 1<<20)
	half := make([]byte, 2048)
	for n := int64(0); n < size; n += 2 * int64(len(half)) {
		random.Read(half) //nolint:errcheck // it has no error
		left := size - n
		b.Write(half[:min(left, int64(len(half)))])                          //nolint:errcheck // Flush returns it
		b.Write(half[:min(max(left-int64(len(half)), 0), int64(len(half)))]) //nolint:errcheck // Flush returns it
	}
	return b.Flush()
}

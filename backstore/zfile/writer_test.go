package zfile_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/reprise-containers/reprise/backstore/zfile"
)

// memory is a blob in memory that is all present.
type memory []byte

func (m memory) Size() int64               { return int64(len(m)) }
func (m memory) Present(off, n int64) bool { return true }
func (m memory) String() string            { return "memory" }
func (m memory) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}

// file is an empty file in memory.
type file struct{ bytes.Buffer }

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	return copy(f.Bytes()[off:], p), nil
}

// content returns n bytes that compress like a file system does: runs of
// text, of noise and of zeros.
func content(n int) []byte {
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, 0, n+8192)
	for len(b) < n {
		switch rnd.IntN(4) {
		case 0:
			for range 100 + rnd.IntN(200) {
				b = fmt.Appendf(b, "line %d of %x\n", rnd.IntN(1000), rnd.IntN(50))
			}
		case 1:
			b = append(b, make([]byte, rnd.IntN(6000))...)
		default:
			for range rnd.IntN(3000) {
				b = append(b, byte(rnd.Uint32()))
			}
		}
	}
	return b[:n]
}

func compress(t testing.TB, data []byte, opts zfile.Options) []byte {
	t.Helper()
	var f file
	n, err := zfile.Compress(&f, bytes.NewReader(data), opts)
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(f.Len()) {
		t.Fatalf("Compress says %d bytes, wrote %d", n, f.Len())
	}
	return f.Bytes()
}

func readAll(t testing.TB, z *zfile.Reader) []byte {
	t.Helper()
	b := make([]byte, z.Size())
	if n, err := z.ReadAt(t.Context(), b, 0); n != len(b) || err != nil {
		t.Fatalf("reading %d bytes: %d, %v", len(b), n, err)
	}
	return b
}

// TestRoundTrip writes and reads all shapes, whole and in random pieces.
func TestRoundTrip(t *testing.T) {
	sizes := []int{0, 1, 511, 4096, 4097, 1<<20 + 5003}
	for _, algorithm := range []zfile.Algorithm{zfile.LZ4, zfile.ZSTD} {
		for _, blockSize := range []int{4096, 8192, 16384, 32768} {
			for _, variant := range []zfile.Options{{}, {NoChecksums: true}, {FinalHeader: true}} {
				opts := variant
				opts.Algorithm, opts.BlockSize = algorithm, blockSize
				t.Run(fmt.Sprintf("%v-%d-%v-%v", algorithm, blockSize, opts.NoChecksums, opts.FinalHeader), func(t *testing.T) {
					for _, size := range sizes {
						checkRoundTrip(t, content(size), opts)
					}
				})
			}
		}
	}
}

func checkRoundTrip(t *testing.T, data []byte, opts zfile.Options) {
	t.Helper()
	z, err := zfile.Open(t.Context(), memory(compress(t, data, opts)))
	if err != nil {
		t.Fatal(err)
	}
	if z.Algorithm() != opts.Algorithm || z.BlockSize() != opts.BlockSize || z.Verified() == opts.NoChecksums {
		t.Error("options were not kept")
	}
	if got := readAll(t, z); !bytes.Equal(got, data) {
		t.Fatalf("%d bytes differ", len(data))
	}
	rnd := rand.New(rand.NewPCG(2, 2))
	for range 100 {
		off, n := rnd.IntN(len(data)+10), rnd.IntN(1+rnd.IntN(100000))
		p := make([]byte, n)
		got, err := z.ReadAt(t.Context(), p, int64(off))
		want := data[min(off, len(data)):min(off+n, len(data))]
		if got != len(want) || !bytes.Equal(p[:got], want) {
			t.Fatalf("reading %d bytes at %d of %d: %d, %v", n, off, len(data), got, err)
		}
		if (got < n) != (err == io.EOF) || err != nil && err != io.EOF {
			t.Fatalf("reading %d bytes at %d of %d: %d and error %v", n, off, len(data), got, err)
		}
	}
}

// TestDeterminism: the number of workers and the sizes of writes leave no
// trace in the result.
func TestDeterminism(t *testing.T) {
	data := content(5<<20 + 777)
	for _, algorithm := range []zfile.Algorithm{zfile.LZ4, zfile.ZSTD} {
		want := compress(t, data, zfile.Options{Algorithm: algorithm, Workers: 1})
		for workers := 2; workers <= 7; workers++ {
			if got := compress(t, data, zfile.Options{Algorithm: algorithm, Workers: workers}); !bytes.Equal(got, want) {
				t.Errorf("%v: %d workers give another file than one", algorithm, workers)
			}
		}
		var f file
		z, err := zfile.NewWriter(&f, zfile.Options{Algorithm: algorithm, Workers: 3})
		if err != nil {
			t.Fatal(err)
		}
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+len(rest)%9999)
			if _, err := z.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(f.Bytes(), want) {
			t.Errorf("%v: small writes give another file than large ones", algorithm)
		}
	}
}

// TestRewrap takes the stored blocks out of upstream's files and writes a file
// around them, which must equal upstream's byte by byte.
func TestRewrap(t *testing.T) {
	paths, err := filepath.Glob("../testdata/vectors/small-chain3/*.zfile")
	if err != nil || len(paths) == 0 {
		t.Fatal("no vectors", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			z, err := zfile.Open(t.Context(), memory(want))
			if err != nil {
				t.Fatal(err)
			}
			var f file
			w, err := zfile.NewWriter(&f, zfile.Options{
				Algorithm:   z.Algorithm(),
				BlockSize:   z.BlockSize(),
				NoChecksums: !z.Verified(),
				FinalHeader: want[32]&8 != 0,
				Workers:     1,
			})
			if err != nil {
				t.Fatal(err)
			}
			for i := range z.Blocks() {
				start := i * int64(z.BlockSize())
				n := min(int64(z.BlockSize()), z.Size()-start)
				at, length := z.Extent(start, n)
				if err := w.WriteStored(want[at:at+length], int(n)); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(f.Bytes(), want) {
				t.Error("file differs from upstream's")
			}
		})
	}
}

// TestWriterLimits: what upstream can't read is not written.
func TestWriterLimits(t *testing.T) {
	noise := make([]byte, 1<<20)
	rnd := rand.New(rand.NewPCG(3, 3))
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	for _, blockSize := range []int{512, 65536} {
		opts := zfile.Options{BlockSize: blockSize}
		if _, err := zfile.Compress(io.Discard, bytes.NewReader(noise), opts); err == nil {
			t.Errorf("noise in blocks of %d bytes was written", blockSize)
		}
		checkRoundTrip(t, make([]byte, 1<<20), zfile.Options{Algorithm: zfile.LZ4, BlockSize: blockSize})
	}
	for blockSize := 4096; blockSize <= 32768; blockSize *= 2 {
		checkRoundTrip(t, noise, zfile.Options{Algorithm: zfile.ZSTD, BlockSize: blockSize})
		checkRoundTrip(t, noise, zfile.Options{Algorithm: zfile.LZ4, BlockSize: blockSize})
	}
	for _, opts := range []zfile.Options{
		{BlockSize: 3000}, {BlockSize: 256}, {BlockSize: 1 << 17}, {Algorithm: 9}, {Workers: -1},
	} {
		if _, err := zfile.NewWriter(io.Discard, opts); err == nil {
			t.Errorf("%+v was accepted", opts)
		}
	}
	if _, err := zfile.NewWriter(io.Discard, zfile.Options{FinalHeader: true}); err == nil {
		t.Error("a final header on a pure stream was accepted")
	}
}

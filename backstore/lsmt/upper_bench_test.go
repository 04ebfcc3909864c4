package lsmt_test

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// plain is a file as a device, beside which a layer is measured.
type plain struct{ *os.File }

func (p plain) sync() error { return unix.Fdatasync(int(p.Fd())) }

// BenchmarkRandomWrite4K writes 4 KiB to random places of 1 GiB, beside a
// sparse file and one that is all written; Sync makes each write durable.
func BenchmarkRandomWrite4K(b *testing.B) {
	const size = 256 << 20
	for _, every := range []struct {
		name string
		sync bool
	}{{"Sync", true}, {"NoSync", false}} {
		for _, kind := range []string{"append-only", "sparse", "file with holes", "written file"} {
			b.Run(every.name+"/"+kind, func(b *testing.B) {
				w, sync := target(b, kind, size)
				rnd, p := rand.New(rand.NewPCG(1, 2)), sectors(1, 8)
				b.SetBytes(int64(len(p)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := w.WriteAt(p, rnd.Int64N(size/4096)*4096); err != nil {
						b.Fatal(err)
					}
					if every.sync {
						if err := sync(); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}

type upperWriter struct {
	*lsmt.Upper
	b *testing.B
}

func (u upperWriter) WriteAt(p []byte, off int64) (int, error) {
	return u.Upper.WriteAt(u.b.Context(), p, off)
}

func target(b *testing.B, kind string, size int64) (w io.WriterAt, sync func() error) {
	b.Helper()
	switch kind {
	case "append-only", "sparse":
		u, _ := newUpper(b, kind == "sparse", size, nil)
		return upperWriter{u, b}, func() error { return u.Flush(b.Context()) }
	}
	f, err := os.Create(filepath.Join(b.TempDir(), "file"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		b.Fatal(err)
	}
	if kind == "written file" {
		for off := int64(0); off < size; off += 1 << 20 {
			if _, err := f.WriteAt(sectors(1, 2048), off); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	return f, plain{f}.sync
}

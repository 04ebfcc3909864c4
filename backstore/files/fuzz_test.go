package files_test

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore/erofs"
	"github.com/reprise-containers/reprise/backstore/ext4"
	"github.com/reprise-containers/reprise/backstore/files"
	"github.com/reprise-containers/reprise/backstore/files/filestest"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// FuzzRanges damages file systems of several kinds: each five bytes of a patch
// choose a byte that was not zero, or one close to it, and say what it becomes.
// Whatever comes of it, what is found lies on the device and is no more than it
// holds.
func FuzzRanges(f *testing.F) {
	bases := smallImages(f)
	for n := range bases {
		f.Add(uint8(n), []byte{})
		f.Add(uint8(n), []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	}
	f.Fuzz(func(t *testing.T, n uint8, patch []byte) {
		base := bases[int(n)%len(bases)]
		image := slices.Clone(base.image)
		for ; len(patch) >= 5; patch = patch[5:] {
			at := base.used[int(binary.LittleEndian.Uint32(patch)>>4)%len(base.used)] + int(patch[0]&15)
			image[min(at, len(image)-1)] = patch[4]
		}
		dev := blobtest.Bytes(image)
		ranges, _, err := files.Ranges(t.Context(), dev, []string{"/", "/d/up", "/many/file-17", "/d/"})
		if err != nil && !expected(err) {
			t.Fatal(err)
		}
		var sum int64
		for _, r := range ranges {
			if r.Off < 0 || r.Size <= 0 || r.Off > dev.Size()-r.Size {
				t.Fatalf("%v is not on a device of %d bytes", r, dev.Size())
			}
			sum += r.Size
		}
		if sum > dev.Size() {
			t.Fatalf("%d bytes were found on a device of %d", sum, dev.Size())
		}
	})
}

// expected reports whether an error is what a damaged file system may cause.
func expected(err error) bool {
	return errors.Is(err, ext4.ErrFormat) || errors.Is(err, erofs.ErrFormat) || errors.Is(err, files.ErrLimit) ||
		errors.Is(err, io.ErrUnexpectedEOF)
}

type smallImage struct {
	image []byte
	used  []int // offsets of 16 bytes that are not all zero
}

// smallImages makes file systems that are small and have a bit of everything.
func smallImages(f *testing.F) (out []smallImage) {
	f.Helper()
	dir := f.TempDir()
	must := func(err error) {
		f.Helper()
		if err != nil {
			f.Fatal(err)
		}
	}
	must(os.MkdirAll(dir+"/d/e/f", 0o755))
	must(os.Mkdir(dir+"/many", 0o755))
	for n := range 100 {
		must(os.WriteFile(dir+"/many/file-"+strings.Repeat("1", n%20)+"7", make([]byte, n*10), 0o600))
	}
	must(os.WriteFile(dir+"/d/e/f/data", make([]byte, 50000), 0o600))
	must(os.Symlink("../d/e/./f/data", dir+"/d/up"))
	must(os.Symlink(strings.Repeat("e/../", 20)+"e", dir+"/d/long"))
	var made []string
	for _, flags := range [][]string{
		{"-b", "1024", "-I", "128"},
		{"-b", "1024", "-O", "inline_data", "-I", "256"},
		{"-b", "1024", "-O", "^extents,^64bit"},
		{"-b", "1024", "-O", "meta_bg,^resize_inode", "-g", "256"},
	} {
		made = append(made, filestest.Ext4Sized(f, 1<<20, dir, append(flags, "-O", "^has_journal", "-N", "256",
			"-U", "6f0bd000-0000-4000-8000-000000000001", "-E", "hash_seed=6f0bd000-0000-4000-8000-000000000002")...))
	}
	made = append(made, filestest.Erofs(f, dir), filestest.Erofs(f, dir, "-E", "noinline_data"))
	for _, file := range made {
		b, err := os.ReadFile(file)
		must(err)
		s := smallImage{image: b}
		for at := 0; at < len(b); at += 16 {
			if strings.Trim(string(b[at:at+16]), "\x00") != "" {
				s.used = append(s.used, at)
			}
		}
		out = append(out, s)
	}
	return out
}

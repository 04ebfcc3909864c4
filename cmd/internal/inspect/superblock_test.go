package inspect_test

import (
	"bytes"
	"context"
	"io"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/cmd/internal/inspect"
	"github.com/reprise-containers/reprise/remote/blob"
)

// The sizes of file systems are those of the programs that made them.
func TestFileSystemSize(t *testing.T) {
	for _, c := range []struct {
		fsType string
		size   int64
		argv   []string
	}{
		{"ext4", 16 << 20, []string{"mkfs.ext4", "-q", "DISK", "16M"}},
		{"ext4", 8 << 20, []string{"mkfs.ext4", "-q", "-b", "1024", "-O", "^64bit", "DISK", "8M"}},
		{"xfs", 320 << 20, []string{"mkfs.xfs", "-q", "-d", "file,name=DISK,size=320m"}},
		{"erofs", 0, []string{"mkfs.erofs", "--quiet", "DISK", "."}}, // as large as the file
	} {
		t.Run(c.argv[0], func(t *testing.T) {
			program, err := exec.LookPath("/usr/sbin/" + c.argv[0])
			if err != nil {
				if program, err = exec.LookPath(c.argv[0]); err != nil {
					t.Skipf("no %s", c.argv[0])
				}
			}
			disk := filepath.Join(t.TempDir(), "disk")
			var args []string
			for _, a := range c.argv[1:] {
				args = append(args, string(bytes.ReplaceAll([]byte(a), []byte("DISK"), []byte(disk))))
			}
			if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			f, err := blob.OpenFile(disk)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if c.size == 0 {
				c.size = f.Size()
			}
			fsType, err := fusedev.FSType(t.Context(), f)
			if err != nil || fsType != c.fsType {
				t.Errorf("type %q, %v", fsType, err)
			}
			if got, err := inspect.FileSystemSize(t.Context(), f, fsType); err != nil || got != c.size {
				t.Errorf("size %d, want %d, %v", got, c.size, err)
			}
		})
	}
}

// superblock is a device that has little more than one.
type superblock []byte

func (s superblock) Size() int64 { return int64(len(s)) }
func (s superblock) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	if n := copy(p, s[min(off, s.Size()):]); n < len(p) {
		return n, io.EOF
	}
	return len(p), nil
}

func FuzzFileSystemSize(f *testing.F) {
	f.Add([]byte("XFSB"), "xfs")
	f.Add(make([]byte, 2048), "ext4")
	f.Add(make([]byte, 100), "erofs")
	f.Fuzz(func(t *testing.T, b []byte, fsType string) {
		n, err := inspect.FileSystemSize(t.Context(), superblock(b), fsType)
		if err != nil || n < 0 {
			t.Errorf("size %d, %v", n, err)
		}
	})
}

package fusedev_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// needRoot skips tests that mount.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount file systems")
	}
	for _, dev := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(dev); err != nil {
			t.Skipf("needs %s", dev)
		}
	}
}

// makeTree fills dir with files of different sizes, the same in every run.
func makeTree(t testing.TB, dir string, bytes int) {
	t.Helper()
	rnd := rand.New(rand.NewChaCha8([32]byte{7}))
	sizes := []int{0, 1, 511, 4096, 4097, 70_000, 300_000}
	for i, total := 0, 0; total < bytes; i++ {
		n := sizes[i%len(sizes)]
		p := make([]byte, n)
		for j := 0; j < n; j += 1 + rnd.IntN(4) {
			p[j] = byte(rnd.Uint32())
		}
		name := filepath.Join(dir, fmt.Sprintf("d%d", i%13), fmt.Sprintf("f%d", i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, p, 0o644); err != nil {
			t.Fatal(err)
		}
		total += n
	}
}

// makeImage makes an image of fsType with the tree src.
func makeImage(t testing.TB, fsType, src string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), fsType+".img")
	var cmd *exec.Cmd
	switch fsType {
	case "ext4":
		cmd = exec.Command("mkfs.ext4", "-q", "-d", src, name, "128M")
	case "erofs":
		cmd = exec.Command("mkfs.erofs", name, src)
	case "xfs":
		proto := filepath.Join(t.TempDir(), "proto")
		if err := os.WriteFile(proto, []byte("/\n0 0\nd--755 0 0\n"+protoOf(t, src)), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd = exec.Command("mkfs.xfs", "-q", "-p", proto, "-d", "file,size=300m,name="+name)
	}
	if _, err := exec.LookPath(cmd.Args[0]); err != nil {
		t.Skipf("needs %s (packages e2fsprogs, erofs-utils, xfsprogs)", cmd.Args[0])
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return name
}

// treeSum returns a digest of the names and contents of all files below dir.
func treeSum(dir string) (string, error) {
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "lost+found") {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		fmt.Fprintf(h, "%s\n", strings.TrimPrefix(path, dir))
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		return forget(f)
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

// protoOf describes the contents of dir as mkfs.xfs wants it.
func protoOf(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			fmt.Fprintf(&b, "%s d--755 0 0\n%s", e.Name(), protoOf(t, path))
		} else {
			fmt.Fprintf(&b, "%s ---644 0 0 %s\n", e.Name(), path)
		}
	}
	return b.String() + "$\n"
}

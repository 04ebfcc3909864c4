package attach_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/attach"
	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/tracelayer"
)

// TestMain makes the test binary serve as the processes of package fusedev.
func TestMain(m *testing.M) {
	if code, ok := fusedev.Child(os.Args); ok {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// Sizes of the files in the tests' images, in bytes.
const (
	neededSize   = 1 << 20
	unneededSize = 4 << 20
)

// layerOf makes a layer with a file system of two files.
func layerOf(t *testing.T, fsType string) backstore.Layer {
	t.Helper()
	src, name := t.TempDir(), filepath.Join(t.TempDir(), "image")
	rng := rand.NewChaCha8([32]byte{1})
	for file, size := range map[string]int{"needed": neededSize, "unneeded": unneededSize} {
		p := make([]byte, size)
		_, _ = rng.Read(p) // never fails
		if err := os.WriteFile(filepath.Join(src, file), p, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var cmd *exec.Cmd
	switch fsType {
	case "ext4":
		cmd = exec.Command("mkfs.ext4", "-q", "-d", src, name, "32M")
	case "erofs":
		cmd = exec.Command("mkfs.erofs", name, src)
	case "xfs":
		proto := filepath.Join(t.TempDir(), "proto")
		text := "/\n0 0\nd--755 0 0\nneeded ---644 0 0 " + src + "/needed\nunneeded ---644 0 0 " + src + "/unneeded\n$\n"
		if err := os.WriteFile(proto, []byte(text), 0o600); err != nil {
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
	disk, err := blob.OpenFile(name)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	f, err := os.Create(filepath.Join(t.TempDir(), backstore.LayerFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = backstore.WriteLayer(f, zfile.Options{Algorithm: zfile.LZ4, BlockSize: 4096}, func(w io.Writer) error {
		return lsmt.CommitDisk(t.Context(), w, disk, lsmt.DiskOptions{})
	})
	if err != nil {
		t.Fatal(err)
	}
	return backstore.Layer{File: f.Name()}
}

// serve returns a running device server.
func serve(t *testing.T) *fusedev.Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "attach") // a short path, for a socket
	if err != nil {
		t.Fatal(err)
	}
	s, err := fusedev.Open(t.Context(), fusedev.Config{StateDir: dir + "/state", RuntimeDir: dir + "/run"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(context.WithoutCancel(t.Context())) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
			return // what is mounted must not be removed
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

// needKernel skips a test where file systems can't be mounted.
func needKernel(t *testing.T) {
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

// TestRecordKernel mounts an image twice, with real kernel file systems on real
// devices. After all of it was read through the one mount, what is read through the
// other is recorded: page by page, and that alone.
func TestRecordKernel(t *testing.T) {
	needKernel(t)
	for _, fsType := range []string{"ext4", "xfs", "erofs"} {
		t.Run(fsType, func(t *testing.T) {
			img := backstore.Image{Layers: []backstore.Layer{layerOf(t, fsType)}, FSType: fsType}
			s := serve(t)
			a := attach.New(s, nil, attach.DefaultConfig)
			if _, err := a.Recover(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			defer run(t, a)()
			dir := t.TempDir()
			plain, rec := filepath.Join(dir, "plain"), filepath.Join(dir, "rec")
			for _, d := range []string{plain, rec} {
				if err := os.Mkdir(d, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := a.Attach(t.Context(), "plain", img, plain); err != nil {
				t.Fatal(err)
			}
			cat(t, plain+"/needed", plain+"/unneeded")
			recorder := tracelayer.NewRecorder(0)
			if err := a.Record(t.Context(), "rec", img, rec, recorder); err != nil {
				t.Fatal(err)
			}
			cat(t, rec+"/needed")
			cat(t, plain+"/unneeded")
			trace := recorder.Stop()
			cat(t, rec+"/unneeded")
			var total int64
			for _, r := range trace {
				total += r.Count
			}
			t.Logf("%d reads of %d bytes are recorded of a file of %d", len(trace), total, neededSize)
			if total < neededSize || total > neededSize+neededSize/2 {
				t.Errorf("%d bytes are recorded of reading %d", total, neededSize)
			}
			if len(trace) < neededSize/8192 {
				t.Errorf("%d reads are recorded of %d pages", len(trace), neededSize/4096)
			}
			for id, target := range map[string]string{"rec": rec, "plain": plain} {
				if err := a.Detach(t.Context(), id, target); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// cat has another process read files: one must not read what it serves itself.
func cat(t *testing.T, files ...string) {
	t.Helper()
	var text bytes.Buffer
	cmd := exec.Command("cat", files...)
	cmd.Stderr = &text
	if err := cmd.Run(); err != nil {
		t.Fatalf("reading %v: %v: %s", files, err, text.String())
	}
}

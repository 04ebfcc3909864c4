package attach_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/attach"
	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/device/devicetest"
	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
)

// upper makes the files of a writable layer.
func upper(t *testing.T, opts lsmt.UpperOptions) *lsmt.UpperFiles {
	t.Helper()
	dir := t.TempDir()
	files := lsmt.UpperFiles{Data: dir + "/writable_data", Index: dir + "/writable_index"}
	if err := lsmt.CreateUpper(files, opts); err != nil {
		t.Fatal(err)
	}
	return &files
}

func sized(n int64, sparse bool) lsmt.UpperOptions {
	return lsmt.UpperOptions{Identity: lsmt.Identity{VirtualSize: n}, Sparse: sparse}
}

// shell has another process do something below a mount.
func shell(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

func attacher(t *testing.T) (*attach.Attacher, *fusedev.Server) {
	t.Helper()
	needKernel(t)
	s := serve(t)
	a := attach.New(s, nil, attach.DefaultConfig)
	if _, err := a.Recover(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(run(t, a))
	return a, s
}

// target makes a mount point, which is never below another test's.
func target(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// sealed returns img with what was written to its upper as one more layer.
func sealed(t *testing.T, img backstore.Image, below int64) backstore.Image {
	t.Helper()
	if err := lsmt.SealUpper(t.Context(), *img.Upper, below); err != nil {
		t.Fatal(err)
	}
	img.Layers = append(slices.Clone(img.Layers), backstore.Layer{File: img.Upper.Data})
	img.Upper = nil
	return img
}

// TestWritable writes to the file system of an image, on a device of its own, and
// reads what came of it from a sealed layer on the image.
func TestWritable(t *testing.T) {
	const size = 32 << 20
	for name, sparse := range map[string]bool{"append-only": false, "sparse": true} {
		t.Run(name, func(t *testing.T) {
			a, _ := attacher(t)
			ctx := t.Context()
			img := backstore.Image{Layers: []backstore.Layer{layerOf(t, "ext4")}}
			opts := sized(0, sparse)
			uppers := t.TempDir()
			img.Upper = &lsmt.UpperFiles{Data: uppers + "/data", Index: uppers + "/index"}
			dir := target(t)
			for range 2 {
				if _, err := a.AttachWritable(ctx, "w", img, attach.WritableOptions{Target: dir, Create: &opts}); err != nil {
					t.Fatal(err)
				}
			}
			sum := shell(t, dir, "rm unneeded; head -c 3000000 /dev/urandom >new; echo more >>needed; sync -f .; cat new needed | sha256sum")
			if err := a.Detach(ctx, "w", dir); err != nil {
				t.Fatal(err)
			}
			if _, err := a.AttachWritable(ctx, "w", img, attach.WritableOptions{Target: dir}); err != nil {
				t.Fatal(err)
			}
			if got := shell(t, dir, "cat new needed | sha256sum"); got != sum {
				t.Error("what was written is not there when the device is attached again")
			}
			if err := a.Detach(ctx, "w", dir); err != nil {
				t.Fatal(err)
			}
			below := sealed(t, img, size)
			if err := a.Attach(ctx, "r", below, dir); err != nil {
				t.Fatal(err)
			}
			if got := shell(t, dir, "test ! -e unneeded; cat new needed | sha256sum"); got != sum {
				t.Error("what was written is not there in a sealed layer")
			}
			if err := a.Detach(ctx, "r", dir); err != nil {
				t.Fatal(err)
			}
			// One more on top.
			below.Upper = upper(t, sized(0, false))
			if _, err := a.AttachWritable(ctx, "w2", below, attach.WritableOptions{Target: dir}); err != nil {
				t.Fatal(err)
			}
			if got := shell(t, dir, "cat new needed | sha256sum; rm new"); got != sum {
				t.Error("what was written is not there below another writable layer")
			}
			if err := a.Detach(ctx, "w2", dir); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestWritableBottom makes a file system where there is none, and no second time.
func TestWritableBottom(t *testing.T) {
	a, _ := attacher(t)
	ctx, dir := t.Context(), target(t)
	img := backstore.Image{Upper: upper(t, sized(512<<20, false))}
	// XFS, because ext4 needs CAP_SYS_RESOURCE to grow.
	opts := attach.WritableOptions{Target: dir, FS: fusedev.FileSystem{Type: "xfs"}, Format: true}
	if _, err := a.AttachWritable(ctx, "w", img, opts); err != nil {
		t.Fatal(err)
	}
	shell(t, dir, "echo text >file; sync -f .")
	// Everything that was written is in what Freeze hands over.
	var frozen bytes.Buffer
	err := a.Freeze(ctx, "w", func(ctx context.Context, l *lsmt.Layer) error {
		shell(t, dir, "echo other >file; sync -f .") // goes on
		return l.Commit(ctx, &frozen, lsmt.Identity{})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Grow(ctx, "w", 1<<30); err != nil {
		t.Fatal(err)
	}
	shell(t, dir, "test $(stat -f -c '%b * %S' . | xargs expr) -gt 900000000")
	next := upper(t, sized(1<<30, false))
	if err := a.Restack(ctx, "w", *next); err != nil {
		t.Fatal(err)
	}
	shell(t, dir, "grep -q other file; echo third >second; sync -f .")
	if err := a.Detach(ctx, "w", dir); err != nil {
		t.Fatal(err)
	}
	// The layer that was restacked is one more below.
	img = backstore.Image{Layers: []backstore.Layer{{File: img.Upper.Data}}, Upper: next}
	if _, err := a.AttachWritable(ctx, "w", img, opts); err != nil {
		t.Fatal(err)
	}
	shell(t, dir, "grep -q other file; grep -q third second")
	if err := a.Detach(ctx, "w", dir); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "frozen")
	if err := os.WriteFile(file, frozen.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.Attach(ctx, "f", backstore.Image{Layers: []backstore.Layer{{File: file}}}, dir); err != nil {
		t.Fatal(err)
	}
	shell(t, dir, "grep -q text file")
	if err := a.Detach(ctx, "f", dir); err != nil {
		t.Fatal(err)
	}
}

// TestWritableDevice hands out loop devices and takes them back.
func TestWritableDevice(t *testing.T) {
	a, _ := attacher(t)
	ctx, dir := t.Context(), target(t)
	img := backstore.Image{Layers: []backstore.Layer{layerOf(t, "ext4")}, Upper: upper(t, sized(0, false))}
	w, err := a.AttachWritable(ctx, "w", img, attach.WritableOptions{})
	if err != nil || w.FSType != "ext4" {
		t.Fatal(w, err)
	}
	shell(t, "/", "mount -t "+w.FSType+" "+w.Dev+" "+dir)
	shell(t, dir, "echo text >file")
	if err := a.Detach(ctx, "w", ""); !errors.Is(err, fusedev.ErrBusy) {
		t.Errorf("detaching a device that is mounted: %v", err)
	}
	shell(t, "/", "umount "+dir)
	if err := a.Detach(ctx, "w", ""); err != nil {
		t.Fatal(err)
	}
	img = sealed(t, img, 32<<20)
	dev, err := a.Device(ctx, "r", img)
	if err != nil {
		t.Fatal(err)
	}
	shell(t, "/", "mount -t "+dev.FSType+" -o ro "+dev.Dev+" "+dir)
	shell(t, dir, "grep -q text file")
	shell(t, "/", "umount "+dir)
	if err := a.Detach(ctx, "r", ""); err != nil {
		t.Fatal(err)
	}
}

// TestWritableErofs refuses what nobody can write.
func TestWritableErofs(t *testing.T) {
	a, s := attacher(t)
	img := backstore.Image{Layers: []backstore.Layer{layerOf(t, "erofs")}, Upper: upper(t, sized(0, false))}
	if _, err := a.AttachWritable(t.Context(), "w", img, attach.WritableOptions{Target: target(t)}); !errors.Is(err, attach.ErrReadOnlyFS) {
		t.Errorf("attaching erofs for writing: %v", err)
	}
	if known := s.Known(); len(known) != 0 {
		t.Errorf("left devices %q", known)
	}
}

// TestWritableRecover takes a writable device over from a daemon that is gone.
func TestWritableRecover(t *testing.T) {
	remote, _, r, want := images(t)
	k := newKernel()
	a := attach.New(k, r.open, attach.Config{})
	remote.Upper = upper(t, sized(0, false))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := a.AttachWritable(t.Context(), "w", remote, attach.WritableOptions{Target: "/w"})
	must(err)
	d, ok := k.devices["w"].(device.Writable)
	if !ok {
		t.Fatalf("%T can't be written", k.devices["w"])
	}
	p := devicetest.Random(8192)
	_, err = d.WriteAt(t.Context(), p, 4096)
	must(err)
	copy(want[4096:], p)
	must(a.Grow(t.Context(), "w", int64(len(want))+1<<20))
	want = append(want, make([]byte, 1<<20)...)
	// What a process leaves that is gone: its locks are, and its files stay open
	// for nobody.
	must(a.Detach(t.Context(), "w", ""))
	k.sizes = map[string]int64{"w": int64(len(want))}
	k.mounts = map[string]string{"/w": "w"}
	r.set(errors.New("registry is down"), false)
	b := attach.New(k, r.open, attach.Config{})
	got, err := b.Recover(t.Context(), []backstore.Attachment{{ID: "w", Image: remote, Target: "/w"}})
	must(err)
	if !slices.Equal(got, []string{"w"}) {
		t.Errorf("Recover = %q", got)
	}
	d = k.devices["w"].(device.Writable)
	buf := make([]byte, len(p))
	_, err = d.ReadAt(t.Context(), buf, 4096)
	must(err)
	if !bytes.Equal(buf, p) {
		t.Error("what was written can't be read while the registry is down")
	}
	_, err = d.WriteAt(t.Context(), p, 64<<10)
	must(err)
	copy(want[64<<10:], p)
	if _, err := d.ReadAt(t.Context(), buf, 256<<10); err == nil {
		t.Error("reading what is below while the registry is down gives no error")
	}
	r.set(nil, false)
	all := make([]byte, len(want))
	if n, err := d.ReadAt(t.Context(), all, 0); n != len(all) || err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(n, err)
	}
	if !bytes.Equal(all, want) {
		t.Error("the device reads as something else")
	}
}

// TestWritableConforms runs the suite for devices.
func TestWritableConforms(t *testing.T) {
	for name, sparse := range map[string]bool{"append-only": false, "sparse": true} {
		t.Run(name, func(t *testing.T) {
			devicetest.RunWritable(t, func(t *testing.T, contents []byte) device.Writable {
				file := filepath.Join(t.TempDir(), "layer")
				f, err := os.Create(file)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if err := lsmt.CommitDisk(t.Context(), f, devicetest.Bytes(contents), lsmt.DiskOptions{}); err != nil {
					t.Fatal(err)
				}
				k := newKernel()
				a := attach.New(k, func(string, ocispec.Descriptor) (blob.Blob, error) { return nil, errors.New("no registry") }, attach.Config{})
				img := backstore.Image{Layers: []backstore.Layer{{File: file}}, Upper: upper(t, sized(int64(len(contents)), sparse))}
				if _, err := a.AttachWritable(t.Context(), "w", img, attach.WritableOptions{}); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := a.Detach(context.Background(), "w", ""); err != nil {
						t.Error(err)
					}
				})
				return k.devices["w"].(device.Writable)
			})
		})
	}
}

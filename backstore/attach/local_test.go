package attach_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/attach"
)

// downloaded gives every layer of img a directory with its blob in it.
func downloaded(t *testing.T, img backstore.Image) backstore.Image {
	t.Helper()
	var layers []backstore.Layer
	for i, name := range []string{"L0.lz4-4k.tar", "L1.zstd-4k.zfile", "L2.raw.lsmt"} {
		l := img.Layers[i]
		l.Dir = t.TempDir()
		data, err := os.ReadFile(chain3 + name)
		if err == nil {
			err = os.WriteFile(filepath.Join(l.Dir, backstore.LayerFile), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, l)
	}
	img.Layers = layers
	return img
}

// use makes all layers of img local.
func use(t *testing.T, a *attach.Attacher, img backstore.Image) {
	t.Helper()
	for _, l := range img.Layers {
		if err := a.UseFile(l.Digest, l.Dir); err != nil {
			t.Error(err)
		}
	}
}

// An image whose layers became files is read from them, while others read it,
// and needs no registry any more.
func TestUseFile(t *testing.T) {
	remote, _, r, want := images(t)
	img := downloaded(t, remote)
	k := newKernel()
	a := attach.New(k, r.open, attach.Config{})
	changed := a.Changed()
	if err := a.Attach(t.Context(), "7", img, "/mnt"); err != nil {
		t.Fatal(err)
	}
	<-changed
	for _, l := range a.Images()["7"].Layers {
		if !l.Remote() {
			t.Errorf("layer %s is local before anything was said", l.Digest)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				check(t, k.devices["7"], want)
			}
		})
	}
	use(t, a, img)
	cancel()
	readers.Wait()
	r.set(errors.New("the registry is gone"), false)
	check(t, k.devices["7"], want)
	for i, l := range a.Images()["7"].Layers {
		if l.File != filepath.Join(img.Layers[i].Dir, backstore.LayerFile) {
			t.Errorf("layer %d is read from %q", i, l.File)
		}
	}
	changed = a.Changed()
	if err := a.Detach(t.Context(), "7", "/mnt"); err != nil {
		t.Error(err)
	}
	<-changed
	if err := a.UseFile(img.Layers[0].Digest, img.Layers[0].Dir); err != nil {
		t.Errorf("of a detached image: %v", err)
	}
}

// An image that was taken over is opened by the first read. If its layers
// became files before, no registry is asked.
func TestUseFileBeforeFirstRead(t *testing.T) {
	remote, _, r, want := images(t)
	img := downloaded(t, remote)
	k := newKernel()
	k.sizes["7"] = int64(len(want))
	k.mounts["/mnt"] = "7"
	r.set(errors.New("the registry is down"), false)
	a := attach.New(k, r.open, attach.Config{})
	if _, err := a.Recover(t.Context(), []backstore.Attachment{{ID: "7", Image: img, Target: "/mnt"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.devices["7"].ReadAt(t.Context(), make([]byte, 512), 0); err == nil {
		t.Fatal("read without a registry")
	}
	use(t, a, img)
	check(t, k.devices["7"], want)
}

// A file that is not the blob's size is not used.
func TestUseWrongFile(t *testing.T) {
	remote, _, r, want := images(t)
	img := downloaded(t, remote)
	k := newKernel()
	a := attach.New(k, r.open, attach.Config{})
	if err := a.Attach(t.Context(), "7", img, "/mnt"); err != nil {
		t.Fatal(err)
	}
	l := img.Layers[0]
	if err := os.Truncate(filepath.Join(l.Dir, backstore.LayerFile), 100); err != nil {
		t.Fatal(err)
	}
	if err := a.UseFile(l.Digest, l.Dir); err == nil || !strings.Contains(err.Error(), "100 bytes") {
		t.Errorf("using a file that is cut off: %v", err)
	}
	if err := a.UseFile(l.Digest, "/elsewhere"); err != nil {
		t.Errorf("a directory that no layer has: %v", err)
	}
	check(t, k.devices["7"], want)
}

// With the last layer the image is local, and the kernel may read ahead.
func TestDownloadedImageIsLocal(t *testing.T) {
	remote, _, r, _ := images(t)
	img := downloaded(t, remote)
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		a := attach.New(k, r.open, attach.Config{LocalReadahead: 1024})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := a.Run(ctx); err != nil {
				t.Errorf("Run = %v", err)
			}
		})
		if err := a.Attach(ctx, "7", img, "/mnt"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if s := a.Stats(); s.Local != 0 {
			t.Errorf("cold: %+v", s)
		}
		use(t, a, img)
		synctest.Wait()
		if s := a.Stats(); s.Local != 1 || k.readahead["7"] != 1024 {
			t.Errorf("local: %+v, kernel readahead %d", s, k.readahead["7"])
		}
		if err := a.Detach(ctx, "7", "/mnt"); err != nil {
			t.Error(err)
		}
		cancel()
		wg.Wait()
	})
}

// A local copy that the disk damages later is read around: what a checksum finds
// wrong comes from the registry again.
func TestDamagedFile(t *testing.T) {
	remote, _, r, want := images(t)
	for name, switched := range map[string]bool{"downloaded before": false, "downloaded now": true} {
		t.Run(name, func(t *testing.T) {
			r.set(nil, false)
			img := downloaded(t, remote)
			if !switched {
				for i := range img.Layers {
					img.Layers[i].File = filepath.Join(img.Layers[i].Dir, backstore.LayerFile)
				}
			}
			k := newKernel()
			a := attach.New(k, r.open, attach.Config{})
			if err := a.Attach(t.Context(), "7", img, "/mnt"); err != nil {
				t.Fatal(err)
			}
			use(t, a, img)
			f, err := os.OpenFile(filepath.Join(img.Layers[0].Dir, backstore.LayerFile), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for at := int64(10_000); at < 300_000; at += 3_000 {
				if _, err := f.WriteAt([]byte("damage"), at); err != nil {
					t.Fatal(err)
				}
			}
			r.set(errors.New("the registry is down"), false)
			if _, err := k.devices["7"].ReadAt(t.Context(), make([]byte, len(want)), 0); err == nil {
				t.Error("damage was not noticed")
			}
			r.set(nil, false)
			check(t, k.devices["7"], want)
		})
	}
}

package differ_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	clabels "github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/snapshot/differ"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// checkLayer checks what was returned and stored of a layer, and returns its blob.
func (w *world) checkLayer(desc ocispec.Descriptor, fsType string, want map[string]string) blob.Blob {
	w.t.Helper()
	data, stored := w.blob(desc)
	want = with(map[string]string{clabels.LabelUncompressed: desc.Digest.String()}, want)
	if !maps.Equal(stored, want) {
		w.t.Errorf("the blob is labelled %v, want %v", stored, want)
	}
	a := desc.Annotations
	if desc.MediaType != ocispec.MediaTypeImageLayer || a[labels.BlobDigest] != desc.Digest.String() ||
		a[labels.FSType] != fsType || a[labels.ChunksRoot] == "" {
		w.t.Errorf("the layer is described as %+v", desc)
	}
	if w.kept == 0 {
		w.t.Error("nothing keeps the blob until the client refers to it")
	}
	return blobtest.Bytes(data)
}

// checkWritten checks that a layer is what was written to a device.
func checkWritten(t *testing.T, b blob.Blob, want []byte) {
	t.Helper()
	img, err := backstore.Open(t.Context(), []blob.ReaderAt{b})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1024)
	if _, err := img.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got[:512], sector(want)) || img.Size() != deviceSize {
		t.Errorf("of %d bytes, read %q, %v; want %q", img.Size(), got, err, want)
	}
}

// TestCompareDevice makes a layer of a writable device.
func TestCompareDevice(t *testing.T) {
	w := newWorld(t)
	w.snaps.device, w.snaps.fsType = []byte("written"), "ext4"
	more := map[string]string{"mine": "yes"}
	desc, err := w.differ().Compare(w.ctx, nil, nil, diff.WithLabels(more), diff.WithReference("mine"), diff.WithMediaType(ocispec.MediaTypeImageLayerGzip))
	if err != nil {
		t.Fatal(err)
	}
	checkWritten(t, w.checkLayer(desc, "ext4", more), w.snaps.device)
	if len(more) != 1 {
		t.Errorf("the labels of the caller became %v", more)
	}
	boom := errors.New("boom")
	if _, err := w.differ().Compare(w.ctx, nil, nil, func(*diff.Config) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("Compare with an option that fails = %v", err)
	}
}

var (
	below = map[string]string{"same": "same", "changed": "before", "dir/gone": "x", "dir/stays": "y", "emptied/a": "z"}
	above = map[string]string{"same": "same", "changed": "after!", "dir/stays": "y", "emptied/": "", "new/deep/file": "new"}
)

// TestCompareOverlay makes a layer of a container on overlayfs: the files that
// differ are written to a device that has those below.
func TestCompareOverlay(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	w.snaps.image, w.snaps.base = &backstore.Image{FSType: "ext4"}, below
	desc, err := w.differ().Compare(w.ctx, tree(t, below), tree(t, above))
	if err != nil {
		t.Fatal(err)
	}
	checkWritten(t, w.checkLayer(desc, "ext4", nil), []byte("the files"))
	if !maps.Equal(w.snaps.filled, above) {
		t.Errorf("on the device are %v, want %v", w.snaps.filled, above)
	}
}

// TestCompareFails has everything fail that a comparison needs. Nothing is stored.
func TestCompareFails(t *testing.T) {
	needRoot(t)
	gone := []mount.Mount{{Type: "bind", Source: filepath.Join(t.TempDir(), "gone"), Options: []string{"rbind"}}}
	for name, c := range map[string]struct {
		image   *backstore.Image
		lower   []mount.Mount
		command []string
		spoil   func(t *testing.T, dir string)
		is      error
		says    string
	}{
		"other mounts":  {is: errdefs.ErrNotImplemented},
		"no program":    {image: &backstore.Image{}, command: []string{"/proc/self/none"}, is: os.ErrNotExist},
		"exit code":     {image: &backstore.Image{}, command: []string{"/bin/sh", "-c", "head -c 1 >/dev/null; echo why >&2; exit 3"}, says: "exit status 3: why"},
		"ends early":    {image: &backstore.Image{}, command: []string{"/bin/sh", "-c", "exit 3"}, says: "exit status 3"},
		"lower is gone": {image: &backstore.Image{}, lower: gone, says: "gone"},
		"device is full": {
			image: &backstore.Image{}, says: "no space left",
			spoil: func(t *testing.T, dir string) {
				t.Helper()
				if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := unix.Unmount(dir, 0); err != nil {
						t.Error(err)
					}
				})
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.snaps.image = c.image
			if c.command != nil {
				w.cfg.Command = c.command
			}
			if c.spoil != nil {
				w.snaps.during = func(dir string) { c.spoil(t, dir) }
			}
			if c.lower == nil {
				c.lower = tree(t, below)
			}
			large := with(above, map[string]string{"large": strings.Repeat("large", 1<<18)})
			_, err := w.differ().Compare(w.ctx, c.lower, tree(t, large))
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("Compare = %v, want %v %q", err, c.is, c.says)
			}
			w.checkNothingStored()
		})
	}
}

// TestCompareGivenUp has the context end while the process compares: that ends, and
// the error is the context's.
func TestCompareGivenUp(t *testing.T) {
	for _, when := range []string{"before", "meanwhile"} {
		t.Run(when, func(t *testing.T) {
			w := newWorld(t)
			w.snaps.image = &backstore.Image{FSType: "ext4"}
			fifo := filepath.Join(t.TempDir(), "started")
			if err := unix.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			w.cfg.Command = []string{"/bin/sh", "-c", "echo >" + fifo + "; cat >/dev/null; exit 1"}
			boom := errors.New("boom")
			ctx, cancel := context.WithCancelCause(w.ctx)
			if when == "before" {
				cancel(boom)
				w.cfg.Command[2] = "cat >/dev/null; exit 1"
			} else {
				go func() {
					_, err := os.ReadFile(fifo)
					cancel(errors.Join(boom, err))
				}()
			}
			if _, err := w.differ().Compare(ctx, tree(t, below), tree(t, above)); !errors.Is(err, boom) {
				t.Errorf("Compare = %v, want %v", err, boom)
			}
			w.checkNothingStored()
		})
	}
}

// TestChild has the program started as others start it.
func TestChild(t *testing.T) {
	for _, args := range [][]string{nil, {"reprise"}, {"differ-compare"}, {"reprise", "differ-compare", "more"}} {
		if code, ok := differ.Child(slices.Clone(args)); ok || code != 0 {
			t.Errorf("Child(%q) = %d, %t", args, code, ok)
		}
	}
}

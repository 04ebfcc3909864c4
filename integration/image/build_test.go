package image_test

import (
	"context"
	"os"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/remote/blob"
)

// TestLayersMakeTheDisk reads a built image through the format readers and
// compares every byte with the disk image that it was made of.
func TestLayersMakeTheDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("building images mounts file systems: run as root")
	}
	cache := t.TempDir()
	for _, b := range []image.Build{
		{Name: "ext4", Rootfs: image.Small(), Format: image.Overlaybd{FSType: image.Ext4}, Changes: 2},
		{Name: "erofs", Rootfs: image.Small(), Format: image.Overlaybd{FSType: image.Erofs}},
	} {
		l, err := b.Make(t.Context(), cache, t.Logf)
		if err != nil {
			t.Fatal(err)
		}
		compare(t.Context(), t, l)
	}
}

func compare(ctx context.Context, t *testing.T, l image.Layout) {
	t.Helper()
	_, m, err := l.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	var layers []blob.ReaderAt
	for _, d := range m.Layers {
		f, err := blob.OpenFile(l.BlobPath(d))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		layers = append(layers, f)
	}
	img, err := backstore.Open(ctx, layers)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := lsmt.OpenFile(l.Disk())
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if img.Size() != disk.Size() {
		t.Fatalf("the image has %d bytes, the disk %d", img.Size(), disk.Size())
	}
	got, want := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < disk.Size(); off += int64(len(want)) {
		n := min(int64(len(want)), disk.Size()-off)
		if _, err := img.ReadAt(ctx, got[:n], off); err != nil {
			t.Fatal(err)
		}
		if _, err := disk.ReadAt(ctx, want[:n], off); err != nil {
			t.Fatal(err)
		}
		if string(got[:n]) != string(want[:n]) {
			t.Fatalf("the image differs from the disk in the MiB at %d", off)
		}
	}
}

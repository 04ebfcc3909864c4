package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// Variant returns an image that has the layers of l and one more, which only
// n's variant has: an unused block at the end of the disk holds n. It is made
// below dir.
func (l Layout) Variant(ctx context.Context, o Overlaybd, dir string, n int, args []string) (v Layout, err error) {
	_, m, err := l.Manifest()
	if err != nil {
		return v, err
	}
	disk := fmt.Sprintf("%s/variant-%d.img", dir, n)
	if err := exec.CommandContext(ctx, "cp", "--sparse=always", l.Disk(), disk).Run(); err != nil {
		return v, fmt.Errorf("copying the disk image: %w", err)
	}
	defer os.Remove(disk)
	if err := mark(disk, n); err != nil {
		return v, err
	}
	v.Dir = fmt.Sprintf("%s/variant-%d", dir, n)
	layer, err := v.Layer(ctx, o, disk, l.Disk())
	if err != nil {
		return v, err
	}
	var layers []Layer
	for _, d := range m.Layers {
		layers = append(layers, Layer{d, d.Digest})
		if err := os.Link(l.BlobPath(d), v.BlobPath(d)); err != nil {
			return v, err
		}
	}
	_, err = v.Finish(append(layers, layer), args)
	return v, err
}

func mark(disk string, n int) error {
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.WriteAt(fmt.Append(nil, "variant ", n), info.Size()-4096)
	}
	return errors.Join(err, f.Close())
}

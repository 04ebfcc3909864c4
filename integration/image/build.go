package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build describes an image.
type Build struct {
	// Name is part of its folder's name.
	Name string
	// Rootfs is what its bottom layer holds.
	Rootfs Rootfs
	// Format is how the layers are stored; the zero value makes an ordinary
	// image with one gzip-compressed tar layer.
	Format Overlaybd
	// Changes is the number of further layers; each appends its name to
	// /etc/layers and changes some files. Not for erofs.
	Changes int
	// Args is the image's command.
	Args []string
}

// Make returns the image's layout, made below cache unless an earlier run has.
func (b Build) Make(ctx context.Context, cache string, say Progress) (Layout, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Layout{}, err
	}
	root, err := b.Rootfs.Build(ctx, cache, say)
	if err != nil {
		return Layout{}, err
	}
	done := filepath.Join(cache, "image-"+b.Name+"-"+b.key())
	err = once(done, func() error { return b.build(ctx, cache, root, done, say) })
	return Layout{done}, err
}

func (b Build) build(ctx context.Context, cache, root, done string, say Progress) error {
	tmp, err := os.MkdirTemp(cache, "image.new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	l := Layout{Dir: tmp}
	layers, err := b.layers(ctx, l, root, say)
	if err != nil {
		return fmt.Errorf("building image %s: %w", b.Name, err)
	}
	if _, err := l.Finish(layers, b.Args); err != nil {
		return fmt.Errorf("building image %s: %w", b.Name, err)
	}
	return errors.Join(os.Chmod(tmp, 0o755), os.Rename(tmp, done))
}

func (b Build) key() string {
	h := sha256.Sum256(fmt.Appendf(nil, "v2 %s %+v %d %q", b.Rootfs.key(), b.Format, b.Changes, b.Args))
	return fmt.Sprintf("%x", h[:6])
}

// Disk is the name of the disk image of an overlaybd image's top.
func (l Layout) Disk() string { return filepath.Join(l.Dir, "disk.img") }

func (b Build) layers(ctx context.Context, l Layout, root string, say Progress) ([]Layer, error) {
	if b.Format.FSType == "" {
		say("packing %s as an ordinary layer", b.Name)
		layer, err := l.Ordinary(ctx, root)
		return []Layer{layer}, err
	}
	say("making a disk image of %s with %s", b.Name, b.Format.FSType)
	if err := MakeDisk(ctx, b.Format.FSType, root, l.Disk()); err != nil {
		return nil, err
	}
	say("compressing %s", b.Name)
	bottom, err := l.Layer(ctx, b.Format, l.Disk(), "")
	layers := []Layer{bottom}
	base := l.Disk() + ".base"
	for i := 1; i <= b.Changes && err == nil; i++ {
		if err = b.change(ctx, l.Disk(), base, i); err == nil {
			var next Layer
			next, err = l.Layer(ctx, b.Format, l.Disk(), base)
			layers = append(layers, next)
		}
	}
	os.Remove(base)
	return layers, err
}

// change copies the disk image to base and then changes it as a build step
// would: a kernel mount, some files.
func (b Build) change(ctx context.Context, disk, base string, n int) error {
	if b.Format.FSType == Erofs {
		return fmt.Errorf("%s can't be changed", b.Format.FSType)
	}
	if err := exec.CommandContext(ctx, "cp", "--sparse=always", disk, base).Run(); err != nil {
		return fmt.Errorf("copying the disk image: %w", err)
	}
	return onMount(disk, b.Format.FSType, func(dir string) error { return edit(dir, n) })
}

// edit makes the changes of layer n.
func edit(dir string, n int) error {
	f, err := os.OpenFile(filepath.Join(dir, "etc/layers"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "layer %d\n", n)
	changes := filepath.Join(dir, "var/changes")
	return errors.Join(err, f.Close(),
		os.MkdirAll(changes, 0o755),
		os.WriteFile(filepath.Join(changes, fmt.Sprintf("new-%d", n)), make([]byte, 10_000*n), 0o644),
		os.RemoveAll(filepath.Join(changes, fmt.Sprintf("new-%d", n-1))),
		os.WriteFile(filepath.Join(changes, "rewritten"), fmt.Append(nil, "by layer ", n), 0o600),
	)
}

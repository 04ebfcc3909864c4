package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/loopdev"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/sandbox"
)

// rounds is how often each of two rivals is measured, in turns.
const rounds = 5

// patterns are fio jobs over one file whose pages are in no cache at first.
var patterns = []struct {
	name string
	args []string
}{
	{"sequential 1 MiB", []string{"--rw=read", "--bs=1M"}},
	{"random 4 KiB, 1 thread", []string{"--rw=randread", "--bs=4k", "--io_size=32M"}},
	{"random 4 KiB, 4 threads", []string{"--rw=randread", "--bs=4k", "--numjobs=4", "--thread", "--group_reporting", "--io_size=16M"}},
}

func benchImage(fs image.FSType) image.Build {
	return image.Build{Name: "bench-" + string(fs), Rootfs: image.Bench(), Format: image.Overlaybd{FSType: fs}, Args: []string{"/bin/true"}}
}

// stacks compares reads through the whole stack, with all of the image in the
// daemon's cache, with reads of the same disk image on a plain loop device.
func (b bench) stacks(ctx context.Context) error {
	fmt.Printf("\nReads through the whole stack, image cached by the daemon, against a plain loop device (MB/s, median of %d)\n", rounds)
	fmt.Printf("%-7s %-26s %9s %9s %7s\n", "", "", "stack", "loop", "ratio")
	for _, fs := range []image.FSType{image.Ext4, image.Erofs} {
		l, err := b.image(ctx, benchImage(fs))
		if err != nil {
			return err
		}
		err = b.onNode(ctx, node.Options{}, func(n *node.Node) error { return stack(ctx, n, fs, l) })
		if err != nil {
			return err
		}
	}
	return nil
}

func stack(ctx context.Context, n *node.Node, fs image.FSType, l image.Layout) (err error) {
	if err := n.Push(ctx, l, "bench:1"); err != nil {
		return err
	}
	view, done, err := mountView(ctx, n, "bench:1")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	plain, undo, err := mountPlain(n, fs, l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, undo()) }()
	devices, err := deviceFiles(n)
	if err != nil {
		return err
	}
	if err := prime(devices, plain); err != nil {
		return err
	}
	if err := awaitLocal(ctx, n); err != nil {
		return err
	}
	for _, p := range patterns {
		var ours, theirs []float64
		for range rounds {
			for _, x := range []struct {
				dir string
				to  *[]float64
			}{{view, &ours}, {plain, &theirs}} {
				if err := forget(devices); err != nil {
					return err
				}
				mbs, err := fio(ctx, n, x.dir, p.args)
				if err != nil {
					return err
				}
				*x.to = append(*x.to, mbs)
			}
		}
		fmt.Printf("%-7s %-26s %9.0f %9.0f %7.2f\n", fs, p.name, median(ours), median(theirs), median(ours)/median(theirs))
	}
	return nil
}

// prime makes the daemon hold every byte of the devices, and the page cache
// that of the plain file, so that both have all they need in memory.
func prime(devices []string, plain string) error {
	for _, path := range append([]string{plain + "/big"}, devices...) {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
	}
	return nil
}

// awaitLocal waits until the daemon has noticed that it holds all of the image
// and has turned the kernel's readahead on.
func awaitLocal(ctx context.Context, n *node.Node) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("the image did not become local"))
	defer cancel()
	for {
		local, err := n.Snapshotter.Metric(ctx, "reprise_images_local")
		if err != nil || local > 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

// deviceFiles returns the FUSE files behind the mounts of the node.
func deviceFiles(n *node.Node) ([]string, error) {
	mounts, err := sandbox.MountsBelow(n.Root)
	var files []string
	for _, m := range mounts {
		if strings.HasPrefix(m.Type, "fuse") {
			found, _ := filepath.Glob(m.Point + "/*")
			files = append(files, found...)
		}
	}
	if err == nil && len(files) == 0 {
		err = errors.New("found no device to read")
	}
	return files, err
}

// forget drops the kernel's pages of the devices, so that reads go to the
// daemon.
func forget(devices []string) error {
	for _, path := range devices {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("dropping pages of %s: %w", path, err)
		}
	}
	return nil
}

// mountView pulls an image and mounts a read-only view of it.
func mountView(ctx context.Context, n *node.Node, name string) (string, func() error, error) {
	if _, err := n.Containerd.Rpull(ctx, n.Ref(name)); err != nil {
		return "", nil, err
	}
	dir := n.Path("view-" + strings.ReplaceAll(name, ":", "-"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	_, err := n.Containerd.Ctr(ctx, "image", "mount", "--snapshotter", "overlaybd", n.Ref(name), dir)
	return dir, func() error {
		_, err := n.Containerd.Ctr(context.WithoutCancel(ctx), "image", "unmount", "--snapshotter", "overlaybd", "--rm", dir)
		return err
	}, err
}

// mountPlain mounts the disk image on a loop device with the readahead that a
// local image has.
func mountPlain(n *node.Node, fs image.FSType, l image.Layout) (string, func() error, error) {
	dev, err := loopdev.AttachBuffered(l.Disk(), 1024)
	if err != nil {
		return "", nil, err
	}
	dir := n.Path("plain")
	err = os.MkdirAll(dir, 0o755)
	if err == nil {
		err = unix.Mount(dev.Path, dir, string(fs), unix.MS_RDONLY, "")
	}
	if err != nil {
		return "", nil, errors.Join(err, dev.Detach())
	}
	return dir, func() error { return errors.Join(unix.Unmount(dir, 0), dev.Detach()) }, nil
}

// fio reads /big below dir and returns MB/s.
func fio(ctx context.Context, n *node.Node, dir string, args []string) (float64, error) {
	argv := append([]string{"fio", "--name=x", "--filename=" + dir + "/big", "--readonly", "--ioengine=psync",
		"--invalidate=1", "--output-format=json"}, args...)
	out, err := n.Run(ctx, argv...)
	if err != nil {
		return 0, err
	}
	var r struct {
		Jobs []struct {
			Read struct {
				Bandwidth float64 `json:"bw_bytes"`
			}
		}
	}
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &r); err != nil || len(r.Jobs) == 0 {
		return 0, fmt.Errorf("reading fio's output: %w: %.200s", err, out)
	}
	return r.Jobs[0].Read.Bandwidth / 1e6, nil
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

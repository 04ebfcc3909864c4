package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
)

// attached is the number of images in the memory benchmark.
const attached = 100

// memory attaches images and reads the daemon's resident memory.
func (b bench) memory(ctx context.Context) error {
	fmt.Printf("\nResident memory of the daemon\n%8s %10s %18s\n", "images", "MB", "MB a further image")
	build := image.Build{Name: "numpy-ext4", Rootfs: image.Numpy(), Format: image.Overlaybd{FSType: image.Ext4}, Args: image.NumpyCommand()}
	l, err := b.image(ctx, build)
	if err != nil {
		return err
	}
	// Links into the image's folder need its file system.
	dir, err := os.MkdirTemp(filepath.Dir(l.Dir), "variants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return b.onNode(ctx, node.Options{}, func(n *node.Node) (err error) {
		var views []func() error
		defer func() {
			for _, done := range views {
				err = errors.Join(err, done())
			}
		}()
		var first float64
		for i := 1; i <= attached; i++ {
			v, err := l.Variant(ctx, build.Format, dir, i, build.Args)
			if err != nil {
				return err
			}
			name := fmt.Sprintf("variant:%d", i)
			if err := n.Push(ctx, v, name); err != nil {
				return err
			}
			_, done, err := mountView(ctx, n, name)
			if err != nil {
				return err
			}
			views = append(views, done)
			if i != 1 && i != attached {
				continue
			}
			mb, err := resident(n.Snapshotter.Pid())
			if err != nil {
				return err
			}
			if i == 1 {
				first = mb
			}
			fmt.Printf("%8d %10.1f %18.2f\n", i, mb, (mb-first)/float64(max(i-1, 1)))
		}
		return nil
	})
}

// resident returns the resident memory of a process in MB.
func resident(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kb, err := strconv.ParseFloat(f[1], 64)
			return kb * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("process %d has no resident memory", pid)
}

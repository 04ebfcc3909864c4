package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/reprise-containers/reprise/backstore/zfile"
)

// unpack has tar unpack the layers into a new folder, one over the other.
// Whiteouts become files: there are few.
func (c *conversion) unpack(ctx context.Context, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, t := range c.tars {
		if err := tool(ctx, "tar", "--extract", "--numeric-owner", "--xattrs", "--directory", dir, "--file", t); err != nil {
			return err
		}
	}
	return nil
}

// mkfs makes an erofs of the unpacked tree and compresses it as our layers are.
// It stands for mkfs.erofs reading a tar archive, which Debian's version 1.5 can
// not do: that reads the same bytes from one file instead of many.
func (c *conversion) mkfs(ctx context.Context, out string) error {
	return mkfsAndCompress(ctx, c.tree, out)
}

// unpackAndMkfs is what there is to do with Debian's version.
func (c *conversion) unpackAndMkfs(ctx context.Context, out string) error {
	tree := filepath.Join(out, "tree")
	if err := c.unpack(ctx, tree); err != nil {
		return err
	}
	return mkfsAndCompress(ctx, tree, out)
}

func mkfsAndCompress(ctx context.Context, tree, out string) error {
	disk := filepath.Join(out, "disk.img")
	if err := tool(ctx, "mkfs.erofs", "--quiet", disk, tree); err != nil {
		return err
	}
	in, err := os.Open(disk)
	if err != nil {
		return err
	}
	defer in.Close()
	f, err := os.Create(filepath.Join(out, "blob"))
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zfile.NewWriter(f, zfile.Options{Algorithm: zfile.ZSTD, BlockSize: 4096, FinalHeader: true})
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{z}, in, make([]byte, 1<<20))
	// A converted layer is on disk when it gets its name.
	return errors.Join(err, z.Close(), f.Sync())
}

func (c *conversion) stargz(ctx context.Context, out string) error {
	_, err := runMeasured(ctx, append([]string{c.estargz, out}, c.tars...)...)
	return err
}

// tool runs a program of the system.
func tool(ctx context.Context, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running %s: %w: %s", argv[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

package obdconv

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cmd/internal/transfer"
)

// readSize is how many bytes are asked of the content store at a time.
const readSize = 1 << 20

// lostFound is a directory that mkfs.ext4 makes, and e2fsck if it needs it: it is
// not in the image.
const lostFound = "lost+found"

// apply unpacks the archive of a layer into the file system of mounts, which has the
// layers below, if there are any. containerd's own code writes; what that gets wrong
// where a layer lies on others, and not in a directory of its own below overlayfs,
// is prepared in a first pass over the names.
func (c *conversion) apply(ctx context.Context, l *layer, mounts []mount.Mount, bottom bool) error {
	var failed error // without what WithTempMount says of it
	err := mount.WithTempMount(ctx, mounts, func(root string) error {
		failed = c.applyTo(ctx, l, root, bottom)
		return failed
	})
	if failed != nil {
		return failed
	}
	return err
}

func (c *conversion) applyTo(ctx context.Context, l *layer, root string, bottom bool) error {
	var opts []archive.ApplyOpt
	if bottom {
		if err := emptied(root); err != nil {
			return fmt.Errorf("emptying the file system: %w", err)
		}
	} else if _, err := c.read(ctx, l, func(r io.Reader) error { return newLower(root).yield(ctx, r) }); err != nil {
		return fmt.Errorf("making room: %w", err)
	} else {
		opts = append(opts, archive.WithConvertWhiteout(skipWhiteout))
	}
	id, err := c.read(ctx, l, func(r io.Reader) error {
		_, err := archive.Apply(ctx, root, r, opts...)
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("unpacking: %w", err)
	case id != l.diffID:
		return fmt.Errorf("unpacked, it has the diff ID %s, the config says %s", id, l.diffID)
	}
	return nil
}

// emptied removes what a new file system has in it.
func emptied(root string) error {
	err := os.Remove(filepath.Join(root, lostFound))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// read calls use with the archive of a layer and returns its digest.
func (c *conversion) read(ctx context.Context, l *layer, use func(io.Reader) error) (id digest.Digest, err error) {
	ra, err := c.cfg.Client.ContentStore().ReaderAt(ctx, transfer.Plain(l.source))
	if errdefs.IsNotFound(err) {
		return "", fmt.Errorf("its content is not here, pull the image in full: %w", err)
	} else if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, ra.Close()) }()
	plain, err := compression.DecompressStream(bufio.NewReaderSize(content.NewReader(ra), readSize))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, plain.Close()) }()
	sum := digest.Canonical.Digester()
	r := io.TeeReader(plain, sum.Hash())
	if err := use(r); err != nil {
		return "", err
	}
	if _, err := io.Copy(io.Discard, r); err != nil { // what is behind the archive
		return "", err
	}
	return sum.Digest(), nil
}

// Names of archives that say what is removed of the layers below.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// skipWhiteout says of which entries files are made.
func skipWhiteout(_ *tar.Header, path string) (bool, error) {
	return !strings.HasPrefix(filepath.Base(path), whiteout), nil
}

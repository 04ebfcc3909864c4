package convert

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/reprise-containers/reprise/backstore/erofs"
)

// Names with a meaning in image layers, see "whiteouts" in the OCI image
// specification; others that start with whiteoutMeta are AUFS's own.
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq"
)

const (
	xattrRecord = "SCHILY.xattr."
	// trustedXattr is the start of names that container runtimes take from no
	// archive: overlayfs, for one, keeps its own notes under such.
	trustedXattr = "trusted."
)

// applier applies a tar archive to a layer of a file system: what results is
// what containerd and overlayfs make of it.
type applier struct {
	layer   *erofs.Layer
	content *spool
	limit   int64 // blocks of the device
}

func (a *applier) apply(ctx context.Context, archive io.Reader) error {
	for tr := tar.NewReader(archive); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			// What follows the archive belongs to the layer's digest.
			_, err = io.Copy(io.Discard, archive)
			return err
		}
		if err != nil {
			return fmt.Errorf("reading the archive: %w", err)
		}
		if err := a.entry(ctx, h, tr); err != nil {
			return fmt.Errorf("archive entry %q: %w", h.Name, err)
		}
	}
}

func (a *applier) entry(ctx context.Context, h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	dir, base := path.Split(path.Clean(h.Name))
	switch {
	case base == whiteoutOpaque:
		return a.layer.Opaque(ctx, dir)
	case strings.HasPrefix(base, whiteoutMeta):
		return nil
	case strings.HasPrefix(base, whiteoutPrefix):
		name := strings.TrimPrefix(base, whiteoutPrefix)
		if name == "" || name == "." || name == ".." {
			return errors.New("whiteout without the name of a file")
		}
		return a.layer.Whiteout(ctx, path.Join(dir, name))
	}
	return a.file(ctx, h, content)
}

func (a *applier) file(ctx context.Context, h *tar.Header, content io.Reader) error {
	f := erofs.File{Attr: attr(h)}
	switch h.Typeflag {
	case tar.TypeDir:
		f.Mode |= erofs.TypeDir
	case tar.TypeReg, tar.TypeGNUSparse, '\x00':
		f.Mode |= erofs.TypeRegular
		if err := a.regular(h, content, &f); err != nil {
			return err
		}
	case tar.TypeSymlink:
		f.Mode = erofs.TypeSymlink | 0o777
		f.Target = h.Linkname
	case tar.TypeChar:
		f.Mode |= erofs.TypeChar
		if h.Devmajor == 0 && h.Devminor == 0 {
			return a.layer.Remove(ctx, h.Name) // what overlayfs takes it for
		}
	case tar.TypeBlock:
		f.Mode |= erofs.TypeBlock
	case tar.TypeFifo:
		f.Mode |= erofs.TypeFIFO
	case tar.TypeLink:
		f.Mode |= erofs.TypeRegular
		dropXattrs(f.Attr)
		return a.layer.Link(ctx, h.Name, h.Linkname, f.Attr)
	default:
		return fmt.Errorf("type %q is not known", h.Typeflag)
	}
	dropXattrs(f.Attr)
	return a.layer.Put(ctx, h.Name, f)
}

// regular stores the content of a regular file.
func (a *applier) regular(h *tar.Header, content io.Reader, f *erofs.File) error {
	if h.Size > (a.limit-int64(a.layer.FirstBlock()))*erofs.BlockSize {
		return errFull(a.limit)
	}
	var err error
	f.Size = h.Size
	if f.Start, err = a.layer.Allocate(h.Size); err != nil {
		return err
	}
	return a.content.add(content, f.Start, h.Size)
}

// attr returns what a header says besides the type.
func attr(h *tar.Header) erofs.Attr {
	at := bound(h.ModTime)
	f := erofs.Attr{
		Mode: uint16(h.Mode & 0o7777),
		UID:  uint32(h.Uid), GID: uint32(h.Gid),
		MTime: at.Unix(), MTimeNsec: uint32(at.Nanosecond()),
		Rdev: erofs.Rdev(uint32(h.Devmajor), uint32(h.Devminor)),
	}
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, xattrRecord); ok {
			if f.Xattrs == nil {
				f.Xattrs = map[string]string{}
			}
			f.Xattrs[name] = value
		}
	}
	return f
}

// bound returns t, or the start of 1970 in place of a time that containerd
// doesn't set either.
func bound(t time.Time) time.Time {
	if first, last := time.Unix(0, 0), time.Unix(0, 1<<63-1); t.Before(first) || t.After(last) {
		return first
	}
	return t
}

// dropXattrs removes those that the unpacked file would not have: those that
// containerd does not take, and those that Linux doesn't, which has a few
// namespaces only, and that of users with files and directories only.
func dropXattrs(f erofs.Attr) {
	t := f.Type()
	for name := range f.Xattrs {
		user := strings.HasPrefix(name, "user.") && t != erofs.TypeRegular && t != erofs.TypeDir
		if user || strings.HasPrefix(name, trustedXattr) || !erofs.KnownXattr(name) {
			delete(f.Xattrs, name)
		}
	}
}

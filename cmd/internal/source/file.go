package source

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxMembers is how many members of a tar file are looked at to find out
// whether it is an OCI archive; a layer has at most three.
const maxMembers = 100_000

// openPath opens a regular file: an OCI archive, a config.v1.json or one layer.
func openPath(ctx context.Context, name, tag string, cfg Config, match platforms.MatchComparer) (*Image, error) {
	f, err := openFile(name)
	if err != nil {
		return nil, err
	}
	var head [2]byte
	if _, err := f.ReadAt(head[:], 0); err != nil && !errors.Is(err, io.EOF) {
		f.Close()
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	switch {
	case head == [2]byte{0x1f, 0x8b}:
		f.Close()
		return nil, fmt.Errorf("%s is compressed with gzip, which neither an overlaybd layer nor an OCI archive is: decompress it first", name)
	case head[0] == '{':
		defer f.Close()
		return openConfig(f, name, cfg)
	}
	if a := scanArchive(f); a != nil {
		img, err := openTree(ctx, a, name, tag, match)
		if err != nil {
			f.Close()
			return nil, err
		}
		img.Kind = KindArchive
		img.closers = append(img.closers, f)
		return img, nil
	}
	if tag != "" {
		f.Close()
		return nil, fmt.Errorf("%s is not an OCI archive, so it has no image %q", name, tag)
	}
	// Neither digest nor annotations are known, so nothing is claimed.
	img := &Image{Name: name, Kind: KindFile, closers: []io.Closer{f}}
	img.Layers = append(img.Layers, newNamedSection(f, name))
	return img, nil
}

// archive is an OCI image layout in a tar file: where its members' data lies.
type archive struct {
	r       io.ReaderAt
	members map[string]extent
}

type extent struct{ off, size int64 }

// scanArchive returns the members of f if it is an OCI archive, else nil. Only
// headers are read.
func scanArchive(f readAtCloser) *archive {
	a := &archive{f, map[string]extent{}}
	r := io.NewSectionReader(f, 0, f.Size())
	tr := tar.NewReader(r)
	for range maxMembers {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		// After Next, the section reader stands where the data begins.
		off, err := r.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil
		}
		a.members[path.Clean(h.Name)] = extent{off, h.Size}
	}
	if _, ok := a.members[ocispec.ImageIndexFile]; !ok {
		return nil
	}
	return a
}

type member struct{ *io.SectionReader }

func (member) Close() error { return nil }

func (a *archive) file(name string) (readAtCloser, error) {
	e, ok := a.members[name]
	if !ok {
		return nil, &os.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return member{io.NewSectionReader(a.r, e.off, e.size)}, nil
}

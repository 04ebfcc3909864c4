package source

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxMembers is how many members of a tar file are looked at to find out
// whether it is an OCI archive; a layer has at most three.
const maxMembers = 100_000

// sniff says what a regular file is: an archive, a config.v1.json or, if it is
// neither, one layer.
func sniff(name string) (Kind, error) {
	f, err := openFile(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var head [2]byte
	if _, err := f.ReadAt(head[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading %s: %w", name, err)
	}
	switch {
	case head == [2]byte{0x1f, 0x8b}:
		return "", fmt.Errorf("%s is compressed with gzip, which neither an overlaybd layer nor an OCI archive is: decompress it first", name)
	case head[0] == '{':
		return KindConfig, nil
	case scanArchive(f) != nil:
		return KindArchive, nil
	}
	return KindFile, nil
}

// file opens what is a file but no archive.
func (t target) file(cfg Config) (*Image, error) {
	if t.tag != "" {
		return nil, fmt.Errorf("%s is not an OCI archive, so it has no image %q", t.path, t.tag)
	}
	f, err := openFile(t.path)
	if err != nil {
		return nil, err
	}
	if t.kind == KindConfig {
		defer f.Close()
		return openConfig(f, t.path, cfg)
	}
	// Neither digest nor annotations are known, so nothing is claimed.
	img := &Image{Name: t.path, Kind: KindFile, closers: []io.Closer{f}}
	img.Layers = append(img.Layers, newNamedSection(f, t.path))
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

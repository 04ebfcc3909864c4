package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
)

// errNotDir is what looking for FILE/x gives; it means that there is no such
// file, not that something is wrong with FILE.
const errNotDir = syscall.ENOTDIR

// annotationImageName is the full reference that containerd writes into the
// index of an exported image, beside the tag of the OCI annotation.
const annotationImageName = "io.containerd.image.name"

// tree is the files of an OCI image layout.
type tree interface {
	// file returns the file at the slash-separated name. The caller owns it.
	file(name string) (readAtCloser, error)
}

type readAtCloser interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// layout is an OCI image layout as a store.
type layout struct {
	tree
	opened *[]io.Closer
}

func openLayout(ctx context.Context, dir, tag string, match platforms.MatchComparer) (*Image, error) {
	if _, err := os.Stat(filepath.Join(dir, ocispec.ImageLayoutFile)); err != nil {
		return nil, fmt.Errorf("%s is a directory but not an OCI layout (it has no file %s)", dir, ocispec.ImageLayoutFile)
	}
	img, err := openTree(ctx, dirTree(dir), dir, tag, match)
	if err != nil {
		return nil, err
	}
	img.Kind = KindLayout
	return img, nil
}

// openTree opens the image with the given tag ("", a tag, or @digest) of a layout.
func openTree(ctx context.Context, t tree, name, tag string, match platforms.MatchComparer) (_ *Image, err error) {
	var opened []io.Closer
	defer func() {
		if err != nil {
			for _, c := range opened {
				c.Close()
			}
		}
	}()
	l := layout{t, &opened}
	index, err := l.index()
	if err != nil {
		return nil, fmt.Errorf("reading the index of %s: %w", name, err)
	}
	desc, err := index.find(tag, match)
	if err != nil {
		return nil, fmt.Errorf("looking for an image in %s: %w", name, err)
	}
	img, err := openImage(ctx, l, desc, match)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	img.Name, img.closers = name, opened
	return img, nil
}

type layoutIndex []ocispec.Descriptor

func (l layout) index() (layoutIndex, error) {
	f, err := l.file(ocispec.ImageIndexFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	doc, err := readDocument(io.NewSectionReader(f, 0, f.Size()), ocispec.Descriptor{Digest: ocispec.ImageIndexFile})
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(doc, &index); err != nil {
		return nil, err
	}
	return index.Manifests, nil
}

// find returns the one image that tag names, or, without a tag, the only one
// for the platform.
func (x layoutIndex) find(tag string, match platforms.MatchComparer) (ocispec.Descriptor, error) {
	x = x.images(tag)
	var found []ocispec.Descriptor
	var names []string
	for _, d := range x {
		if named(d, tag) && (d.Platform == nil || tag != "" || match.Match(*d.Platform)) {
			found = append(found, d)
		}
		if n := d.Annotations[ocispec.AnnotationRefName]; n != "" {
			names = append(names, ":"+n)
		} else {
			names = append(names, "@"+d.Digest.String())
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1 && tag != "":
		return choose(found, match)
	case len(x) == 0:
		return ocispec.Descriptor{}, errors.New("the layout is empty")
	case len(found) > 1:
		return ocispec.Descriptor{}, fmt.Errorf("there are %d: append one of %s", len(found), strings.Join(names, ", "))
	case tag != "":
		return ocispec.Descriptor{}, fmt.Errorf("no %q; there is %s", tag, strings.Join(names, ", "))
	}
	return choose(x, match)
}

// images returns the entries that can be meant by tag: without one, not those
// that refer to another entry.
func (x layoutIndex) images(tag string) layoutIndex {
	if tag != "" {
		return x
	}
	rest := slices.DeleteFunc(slices.Clone(x), func(d ocispec.Descriptor) bool { return d.ArtifactType != "" })
	if len(rest) == 0 {
		return x
	}
	return rest
}

func named(d ocispec.Descriptor, tag string) bool {
	return tag == "" || tag == "@"+d.Digest.String() ||
		tag == d.Annotations[ocispec.AnnotationRefName] || tag == d.Annotations[annotationImageName]
}

// blobName is where a layout keeps the blob with digest d.
func blobName(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("digest %q: %w", d, err)
	}
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded()), nil
}

func (l layout) read(_ context.Context, desc ocispec.Descriptor) ([]byte, error) {
	name, err := blobName(desc.Digest)
	if err != nil {
		return nil, err
	}
	f, err := l.file(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	doc, err := readDocument(io.NewSectionReader(f, 0, f.Size()), desc)
	if err == nil && desc.Digest.Algorithm().FromBytes(doc) != desc.Digest {
		err = fmt.Errorf("document %s has a different digest: the layout is damaged", desc.Digest)
	}
	return doc, err
}

func (l layout) open(desc ocispec.Descriptor) (blob.Blob, error) {
	name, err := blobName(desc.Digest)
	if err != nil {
		return nil, err
	}
	f, err := l.file(name)
	if err != nil {
		return broken{desc, err}, nil
	}
	if f.Size() != desc.Size {
		f.Close()
		return broken{desc, fmt.Errorf("%s has %d bytes where the manifest says %d", name, f.Size(), desc.Size)}, nil
	}
	*l.opened = append(*l.opened, f)
	return section{f, desc}, nil
}

// dirTree is a layout in a directory.
type dirTree string

func (d dirTree) file(name string) (readAtCloser, error) {
	return openFile(filepath.Join(string(d), filepath.FromSlash(name)))
}

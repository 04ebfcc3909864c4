package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
)

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

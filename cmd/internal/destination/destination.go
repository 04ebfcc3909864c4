// Package destination is where an image that a command makes goes: a repository
// of a registry, an OCI image layout, or an OCI archive.
//
// Blobs and manifests are put first, in an order in which each finds what it
// refers to. The one call to Tag at the end makes them an image; without it,
// what was put has no name, and an archive does not appear at all.
package destination

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/remote/blob"
)

// Content is what is put: it may be read more than once.
type Content interface {
	io.Reader
	io.ReaderAt
	io.Seeker
}

// Store holds blobs and manifests by their digests. Its methods may be called
// in parallel.
type Store interface {
	// Exists reports whether it has what desc describes.
	Exists(ctx context.Context, desc ocispec.Descriptor) (bool, error)
	// Put stores what desc describes. A manifest with a subject becomes a
	// referrer of it.
	Put(ctx context.Context, desc ocispec.Descriptor, r Content) error
	// Open returns a blob that is there.
	Open(desc ocispec.Descriptor) (blob.Blob, error)
}

// Replacer is a Store with referrers of which one can supersede others.
type Replacer interface {
	// PutReferrer is Put of a manifest with a subject. Of those that are
	// listed as its referrers, replaces says which it supersedes: they are
	// not listed any more, except by a registry that keeps the list itself.
	PutReferrer(ctx context.Context, desc ocispec.Descriptor, r Content, replaces func(ocispec.Descriptor) bool) error
}

// Destination is a Store with a name for one image.
type Destination interface {
	Store
	// Tag names the manifest or index text, which desc describes. What it
	// refers to was put before.
	Tag(ctx context.Context, desc ocispec.Descriptor, text []byte) error
	// Close removes what is temporary.
	Close() error
}

// Mounter is a Destination that can take blobs from other repositories of its
// registry without a transfer.
type Mounter interface {
	// Repository returns the name of its repository, with the registry's.
	Repository() string
	// Mount reports whether desc could be taken from a repository.
	Mount(ctx context.Context, desc ocispec.Descriptor, from string) (bool, error)
}

// Location is a destination that was named and not touched yet.
type Location struct {
	Kind source.Kind
	// Path is the directory of a layout or the file of an archive.
	Path string
	// Ref is the complete reference in a registry.
	Ref string
	// Tag is the name of the image in a layout or archive.
	Tag string
}

// String returns the location as an argument.
func (l Location) String() string {
	if l.Kind == source.KindRegistry {
		return l.Ref
	}
	return l.Path + ":" + l.Tag
}

// Argument returns the location as an argument that means nothing else.
func (l Location) Argument() string {
	switch l.Kind {
	case source.KindRegistry:
		return "docker://" + l.Ref
	case source.KindArchive:
		return "oci-archive:" + l.String()
	}
	return "oci:" + l.String()
}

// Parse finds out what arg names. A prefix (docker://, oci:, oci-archive:) says
// it. Without one, what exists is a layout if it is a directory and an archive
// if it is a file; of what does not exist, a name that ends in .tar is an
// archive, one that starts with / or . a layout, and all else a reference. The
// tag is "latest" if there is none.
func Parse(arg string) (Location, error) {
	kind, rest := source.SplitPrefix(arg)
	if rest == "" {
		return Location{}, errors.New("no destination given: name a registry reference, an OCI layout directory or an archive")
	}
	if kind == source.KindRegistry {
		return parseReference(rest)
	}
	path, tag := source.SplitTag(rest)
	if _, err := os.Stat(rest); err == nil {
		path, tag = rest, ""
	}
	if kind == "" {
		kind = guess(path)
	}
	if kind == source.KindRegistry {
		return parseReference(rest)
	}
	if strings.HasPrefix(tag, "@") {
		return Location{}, fmt.Errorf("%s: a destination has a tag, not a digest", arg)
	}
	if tag == "" {
		tag = "latest"
	}
	return Location{Kind: kind, Path: path, Tag: tag}, nil
}

// guess says what path is or shall become.
func guess(path string) source.Kind {
	st, err := os.Stat(path)
	switch {
	case err == nil && st.IsDir():
		return source.KindLayout
	case err == nil, strings.HasSuffix(path, ".tar"):
		return source.KindArchive
	case strings.HasPrefix(path, "/"), strings.HasPrefix(path, "."):
		return source.KindLayout
	}
	return source.KindRegistry
}

func parseReference(s string) (Location, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return Location{}, fmt.Errorf("parsing the destination %q: %w", s, err)
	}
	if _, ok := named.(reference.Digested); ok {
		return Location{}, fmt.Errorf("%s: a destination has a tag, not a digest", s)
	}
	return Location{Kind: source.KindRegistry, Ref: reference.TagNameOnly(named).String()}, nil
}

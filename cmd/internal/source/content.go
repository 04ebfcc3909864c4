package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"syscall"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
)

// Content is an image of any format, in a registry, a layout or an archive:
// its documents and blobs, as they are. Read and Open may be called in
// parallel.
type Content struct {
	// Name is the argument; references are completed.
	Name string
	Kind Kind
	// Root is what the argument names: a manifest or an index.
	Root ocispec.Descriptor

	store   store
	closers []io.Closer

	mu     sync.Mutex   // held while a blob of a layout is opened
	layout *[]io.Closer // its open blobs
}

// OpenContent finds out what arg is and resolves it. A prefix says it, see
// SplitPrefix. Without one, what exists is a layout if it is a directory and an
// archive if it is a file; everything else is taken for a reference. Of a layout
// arg needs to name one image.
func OpenContent(ctx context.Context, arg string, cfg Config) (*Content, error) {
	t, err := parseTarget(arg)
	if err != nil {
		return nil, err
	}
	return t.content(ctx, cfg, func(x layoutIndex, tag string) (ocispec.Descriptor, error) { return x.only(tag, cfg.Platform) })
}

// picker returns what a tag names in the index of a layout.
type picker func(index layoutIndex, tag string) (ocispec.Descriptor, error)

// content opens what t names; files have to be archives.
func (t target) content(ctx context.Context, cfg Config, pick picker) (*Content, error) {
	switch t.kind {
	case KindRegistry:
		return t.reference(ctx, cfg)
	case KindLayout:
		return layoutContent(dirTree(t.path), t, KindLayout, pick)
	}
	return archiveContent(t, pick)
}

func (t target) reference(ctx context.Context, cfg Config) (*Content, error) {
	if cfg.Registry == nil {
		return nil, fmt.Errorf("%s is no image: %w", t.path, syscall.ENOENT)
	}
	named, err := reference.ParseNormalizedNamed(t.path)
	switch {
	case err != nil && t.guessed:
		return nil, fmt.Errorf("%s is neither a registry reference, nor an OCI layout directory, nor a file: %w", t.path, err)
	case err != nil:
		return nil, fmt.Errorf("parsing reference %q: %w", t.path, err)
	}
	ref := reference.TagNameOnly(named).String()
	desc, err := cfg.Registry.Resolve(ctx, ref)
	if err != nil && t.guessed {
		err = fmt.Errorf("%w (there is no file %s either)", err, t.path)
	}
	if err != nil {
		return nil, err
	}
	return &Content{Name: ref, Kind: KindRegistry, Root: desc, store: remote{cfg.Registry, ref}}, nil
}

func archiveContent(t target, pick picker) (*Content, error) {
	f, err := openFile(t.path)
	if err != nil {
		return nil, err
	}
	a := scanArchive(f)
	if a == nil {
		f.Close()
		return nil, fmt.Errorf("%s is not an OCI archive (a tar file, not compressed, with an %s)", t.path, ocispec.ImageIndexFile)
	}
	c, err := layoutContent(a, t, KindArchive, pick)
	if err != nil {
		f.Close()
		return nil, err
	}
	c.closers = append(c.closers, f)
	return c, nil
}

// layoutContent returns what t names in a layout with these files.
func layoutContent(files tree, t target, kind Kind, pick picker) (*Content, error) {
	var opened []io.Closer
	l := layout{files, &opened}
	index, err := l.index()
	if err != nil {
		return nil, fmt.Errorf("reading the index of %s: %w", t.path, err)
	}
	root, err := pick(index, t.tag)
	if err != nil {
		return nil, fmt.Errorf("looking for an image in %s: %w", t.path, err)
	}
	return &Content{Name: t.path, Kind: kind, Root: root, store: l, layout: &opened}, nil
}

// only returns the one image that tag names, whatever its platforms are. If
// there are several, a platform may choose.
func (x layoutIndex) only(tag, choice string) (ocispec.Descriptor, error) {
	match, err := platform(choice)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if choice == "" {
		match = platforms.All
	}
	var found []ocispec.Descriptor
	for _, d := range x.images(tag) {
		if named(d, tag) {
			found = append(found, d)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0 && tag != "":
		return ocispec.Descriptor{}, fmt.Errorf("no image %q: %w", tag, fs.ErrNotExist)
	case choice != "" && len(found) > 1:
		return choose(found, match)
	}
	return x.find(tag, match)
}

// Read returns a document, a manifest, index or config, whose digest was
// verified.
func (c *Content) Read(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	return c.store.read(ctx, desc)
}

// Open returns a blob. Nothing verifies it as a whole.
func (c *Content) Open(desc ocispec.Descriptor) (blob.Blob, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.store.open(desc)
}

// Close closes the files of local content; its blobs can't be read after it.
func (c *Content) Close() error {
	all := c.closers
	if c.layout != nil {
		all = append(all, *c.layout...)
	}
	var errs []error
	for _, f := range all {
		errs = append(errs, f.Close())
	}
	c.closers, c.layout = nil, nil
	return errors.Join(errs...)
}

// Choose returns the best of the manifests of an index for a platform, such as
// "linux/arm64".
func Choose(manifests []ocispec.Descriptor, name string) (ocispec.Descriptor, error) {
	match, err := platform(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return choose(manifests, match)
}

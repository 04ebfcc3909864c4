package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"

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

// Prefixes that say what an argument is, as skopeo and podman have them.
const (
	prefixRegistry = "docker://"
	prefixLayout   = "oci:"
	prefixArchive  = "oci-archive:"
)

// SplitPrefix returns what the prefix of an argument says it is, KindRegistry,
// KindLayout or KindArchive, and the rest of it; kind is empty without one.
func SplitPrefix(arg string) (kind Kind, rest string) {
	for prefix, kind := range map[string]Kind{
		prefixRegistry: KindRegistry, prefixLayout: KindLayout, prefixArchive: KindArchive,
	} {
		if rest, ok := strings.CutPrefix(arg, prefix); ok {
			return kind, rest
		}
	}
	return "", arg
}

// SplitTag splits PATH:TAG and PATH@DIGEST; a digest keeps its "@".
func SplitTag(arg string) (path, tag string) { return splitTag(arg) }

// OpenContent finds out what arg is, as Open does, or takes the word of its
// prefix, and resolves it. Of a layout it needs to name one image.
func OpenContent(ctx context.Context, arg string, cfg Config) (*Content, error) {
	kind, arg := SplitPrefix(arg)
	path, tag := arg, ""
	st, err := os.Stat(path)
	if err != nil && kind != KindRegistry {
		if path, tag = splitTag(arg); tag != "" {
			st, err = os.Stat(path)
		}
	}
	switch {
	case arg == "":
		return nil, errors.New("no image given: name a registry reference, an OCI layout directory or an OCI archive")
	case kind == KindRegistry:
		return referenceContent(ctx, arg, cfg)
	case err == nil && st.IsDir() && kind != KindArchive:
		return layoutContent(dirTree(path), path, KindLayout, tag, cfg)
	case err == nil && kind != KindLayout:
		return archiveContent(path, tag, cfg)
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNotDir), kind != "":
		return nil, fmt.Errorf("%s is no image: %w", arg, errors.Join(err, fs.ErrNotExist))
	}
	return referenceContent(ctx, arg, cfg)
}

func referenceContent(ctx context.Context, arg string, cfg Config) (*Content, error) {
	if cfg.Registry == nil || strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, ".") {
		return nil, fmt.Errorf("%s: %w", arg, fs.ErrNotExist)
	}
	named, err := reference.ParseNormalizedNamed(arg)
	if err != nil {
		return nil, fmt.Errorf("%s is neither a registry reference, nor an OCI layout directory, nor an archive: %w", arg, err)
	}
	ref := reference.TagNameOnly(named).String()
	desc, err := cfg.Registry.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	return &Content{Name: ref, Kind: KindRegistry, Root: desc, store: remote{cfg.Registry, ref}}, nil
}

func archiveContent(path, tag string, cfg Config) (*Content, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	a := scanArchive(f)
	if a == nil {
		f.Close()
		return nil, fmt.Errorf("%s is not an OCI archive (a tar file, not compressed, with an %s)", path, ocispec.ImageIndexFile)
	}
	c, err := layoutContent(a, path, KindArchive, tag, cfg)
	if err != nil {
		f.Close()
		return nil, err
	}
	c.closers = append(c.closers, f)
	return c, nil
}

// layoutContent returns what tag names in a layout.
func layoutContent(t tree, name string, kind Kind, tag string, cfg Config) (*Content, error) {
	var opened []io.Closer
	l := layout{t, &opened}
	index, err := l.index()
	if err != nil {
		return nil, fmt.Errorf("reading the index of %s: %w", name, err)
	}
	root, err := index.only(tag, cfg.Platform)
	if err != nil {
		return nil, fmt.Errorf("looking for an image in %s: %w", name, err)
	}
	return &Content{Name: name, Kind: kind, Root: root, store: l, layout: &opened}, nil
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

// Package source turns what somebody typed into a stack of overlaybd layers:
// an image in a registry, an OCI image layout (a directory or its tar archive),
// one layer in a file, or a config.v1.json of overlaybd.
//
// Nothing of a layer is read here, so an image is opened as quickly as its
// manifest, and a layer that is missing or cut short fails when it is read: a
// command that looks for damage can go on to the next one.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
)

// Registry is how images in registries are reached; with an implementation
// that decorates what Open returns, reads are retried, limited and cached.
type Registry interface {
	// Resolve returns the descriptor that ref names.
	Resolve(ctx context.Context, ref string) (ocispec.Descriptor, error)
	// Fetch returns the content of desc from the repository of ref.
	Fetch(ctx context.Context, ref string, desc ocispec.Descriptor) (io.ReadCloser, error)
	// Open returns the blob desc of the repository of ref, without asking
	// the registry for anything.
	Open(ref string, desc ocispec.Descriptor) (blob.Blob, error)
}

// Config says how arguments are understood.
type Config struct {
	// Registry serves references. Nil: there is none.
	Registry Registry
	// Platform selects from a multi-platform image, for example
	// "linux/arm64". Empty: the host's.
	Platform string
}

// Kind is what an argument turned out to be.
type Kind string

// The kinds of argument.
const (
	KindRegistry Kind = "registry"
	KindLayout   Kind = "layout"
	KindArchive  Kind = "archive"
	KindFile     Kind = "file"
	KindConfig   Kind = "config"
)

// Image is a stack of layers and what is known of it without reading them.
type Image struct {
	// Name is the argument; references are completed (docker.io/library/...).
	Name string
	Kind Kind
	// Manifest is the descriptor of the image manifest; its digest is empty
	// if there is none.
	Manifest ocispec.Descriptor
	// Layers are the layers of the device, bottom first. Their descriptors
	// carry the annotations of the manifest.
	Layers []blob.Blob
	// Trace is the trace layer, or nil. It is not part of the device.
	Trace blob.Blob
	// Stale are trace layers that other layers lie on, left by who stacked
	// those. They are no part of the device either, and nobody replays them.
	Stale []blob.Blob
	// FSType is the type of the file system that the annotations name, or "".
	FSType string
	// MetadataBytes is the size of index and manifest.
	MetadataBytes int64

	store   store // nil: there is no manifest
	closers []io.Closer
}

// Descriptors returns those of the layers.
func (i *Image) Descriptors() []ocispec.Descriptor {
	all := make([]ocispec.Descriptor, len(i.Layers))
	for n, b := range i.Layers {
		all[n] = b.Descriptor()
	}
	return all
}

// Close closes the files of a local image; its layers can't be read after it.
func (i *Image) Close() error {
	var errs []error
	for _, c := range i.closers {
		errs = append(errs, c.Close())
	}
	i.closers = nil
	return errors.Join(errs...)
}

// Open finds out what arg is, see OpenContent, and opens it as a stack of layers.
// Other than there, a file may be one layer or a config.v1.json, and an index is
// for one platform.
func Open(ctx context.Context, arg string, cfg Config) (*Image, error) {
	match, err := platform(cfg.Platform)
	if err != nil {
		return nil, err
	}
	t, err := parseTarget(arg)
	if err != nil {
		return nil, err
	}
	if t.kind == KindFile {
		if t.kind, err = sniff(t.path); err != nil {
			return nil, err
		}
		if t.kind != KindArchive {
			return t.file(cfg)
		}
	}
	c, err := t.content(ctx, cfg, func(x layoutIndex, tag string) (ocispec.Descriptor, error) { return x.find(tag, match) })
	if err != nil {
		return nil, err
	}
	img, err := openImage(ctx, c.store, c.Root, match)
	if err != nil {
		_ = c.Close() // the first error counts
		return nil, fmt.Errorf("opening %s: %w", c.Name, err)
	}
	img.Name, img.Kind, img.store, img.closers = c.Name, c.Kind, c.store, []io.Closer{c}
	return img, nil
}

// OpenAll opens one argument as Open does, or several that are each a file with
// one layer, bottom first, as one stack.
func OpenAll(ctx context.Context, args []string, cfg Config) (_ *Image, err error) {
	if len(args) == 0 {
		return Open(ctx, "", cfg)
	}
	all := &Image{Name: strings.Join(args, "+"), Kind: KindFile}
	defer func() {
		if err != nil {
			_ = all.Close() // the first error counts
		}
	}()
	for _, arg := range args {
		img, err := Open(ctx, arg, cfg)
		if err != nil || len(args) == 1 {
			return img, err
		}
		all.closers = append(all.closers, img)
		if img.Kind != KindFile {
			return nil, fmt.Errorf("%s is a whole image: only files with one layer can be stacked", arg)
		}
		all.Layers = append(all.Layers, img.Layers...)
	}
	return all, nil
}

func platform(s string) (platforms.MatchComparer, error) {
	if s == "" {
		return platforms.Default(), nil
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("parsing platform %q: %w", s, err)
	}
	return platforms.Only(p), nil
}

// remote is the repository of a reference as a store.
type remote struct {
	registry Registry
	ref      string
}

func (r remote) read(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	rc, err := r.registry.Fetch(ctx, r.ref, desc)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return readDocument(rc, desc)
}

func (r remote) open(desc ocispec.Descriptor) (blob.Blob, error) {
	return r.registry.Open(r.ref, desc)
}

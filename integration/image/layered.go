package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/reprise-containers/reprise/integration/tree"
)

// Layered describes an ordinary image of several tar layers, as builders of
// container images make them.
type Layered struct {
	// Name is part of its folder's name.
	Name string
	// Version is to be raised when what the steps' functions do changes.
	Version int
	// Steps make the layers, bottom first.
	Steps []Step
	// Args is the image's command.
	Args []string
}

// Step makes one layer: what packages and Edit do to the tree, or what Write
// adds.
type Step struct {
	Compression Compression
	// Rootfs is added to the tree; packages that an earlier step has are left
	// out.
	Rootfs Rootfs
	// Of, if not 0, has Rootfs's packages and what they need added in that many
	// steps of equal numbers of packages, in apt's order; this is step Part, from 0.
	Part, Of int
	// Edit changes the tree at root as commands of a build would. It sets times
	// where they matter; what it changes just now gets a fixed time.
	Edit func(root string) error
	// Opaque lists directories that the step made anew.
	Opaque []string
	// Write makes the layer without a tree.
	Write func(context.Context, Archive) error
}

// Make returns the image's layout, made below cache unless an earlier run has.
func (i Layered) Make(ctx context.Context, cache string, say Progress) (Layout, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Layout{}, err
	}
	done := filepath.Join(cache, "image-"+i.Name+"-"+i.key())
	err := once(done, func() error { return i.build(ctx, cache, done, say) })
	return Layout{done}, err
}

func (i Layered) build(ctx context.Context, cache, done string, say Progress) error {
	tmp, err := os.MkdirTemp(cache, "image.new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	b := layering{Layout: Layout{Dir: filepath.Join(tmp, "layout")}, cache: cache, root: filepath.Join(tmp, "root"), say: say, have: map[string]bool{}}
	if err := b.make(ctx, i); err != nil {
		return fmt.Errorf("building image %s: %w", i.Name, err)
	}
	return os.Rename(b.Dir, done)
}

func (i Layered) key() string {
	h := sha256.New()
	fmt.Fprintf(h, "v1 %d %q", i.Version, i.Args)
	for _, s := range i.Steps {
		fmt.Fprintf(h, " %d %s %q", s.Compression, s.Rootfs.key(), s.Opaque)
		if s.Of > 0 {
			fmt.Fprintf(h, " %d/%d", s.Part, s.Of)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:6])
}

// layering is an image that is being built.
type layering struct {
	Layout
	cache, root string
	say         Progress
	have        map[string]bool // archives of packages that are unpacked
	seen        []tree.Record   // of the tree after the last step
}

func (b *layering) make(ctx context.Context, i Layered) error {
	if err := os.MkdirAll(b.root, 0o755); err != nil {
		return err
	}
	var layers []Layer
	for n, s := range i.Steps {
		b.say("making layer %d of %d of %s", n+1, len(i.Steps), i.Name)
		layer, err := b.layer(ctx, s)
		if err != nil {
			return fmt.Errorf("layer %d: %w", n+1, err)
		}
		layers = append(layers, layer)
	}
	_, err := b.Finish(layers, i.Args)
	return err
}

func (b *layering) layer(ctx context.Context, s Step) (Layer, error) {
	if s.Write != nil {
		return b.Tar(s.Compression, func(a Archive) error { return s.Write(ctx, a) })
	}
	if err := b.unpack(ctx, s); err != nil {
		return Layer{}, err
	}
	if s.Edit != nil {
		if err := s.Edit(b.root); err != nil {
			return Layer{}, fmt.Errorf("editing the tree: %w", err)
		}
	}
	if err := evenTimes(b.root); err != nil {
		return Layer{}, err
	}
	now, err := tree.Walk(b.root)
	if err != nil {
		return Layer{}, err
	}
	d := diff(b.root, b.seen, now, s.Opaque)
	b.seen = now
	return b.Tar(s.Compression, d.write)
}

// unpack adds the packages of a step to the tree.
func (b *layering) unpack(ctx context.Context, s Step) error {
	if len(s.Rootfs.Packages) > 0 {
		debs, err := s.Rootfs.archives(ctx, b.cache, b.say)
		if err != nil {
			return err
		}
		if s.Of > 0 {
			debs = debs[len(debs)*s.Part/s.Of : len(debs)*(s.Part+1)/s.Of]
		}
		for _, deb := range debs {
			if b.have[deb] {
				continue
			}
			b.have[deb] = true
			if err := command(ctx, "dpkg-deb", "-x", deb, b.root); err != nil {
				return err
			}
		}
	} else if len(b.have) == 0 {
		return errors.New("the first layer has no packages")
	}
	return s.Rootfs.finish(ctx, b.root, b.say)
}

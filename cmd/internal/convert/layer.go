package convert

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	layerconvert "github.com/reprise-containers/reprise/backstore/convert"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/cmd/internal/transfer"
)

// fsType is the file system that layers are converted to.
const fsType = "erofs"

// layer is a layer on its way.
type layer struct {
	number int // from the bottom, 0
	source ocispec.Descriptor
	key    key
	parent digest.Digest // chain ID of the layers below
	out    ocispec.Descriptor
	report *Layer
	bar    *terminal.Bar
	base   bool // it is an overlaybd layer already, and stays as it is
}

// layers returns the layers of a manifest, bottom first.
func (c *conversion) layers(descs []ocispec.Descriptor, diffIDs []digest.Digest) []*layer {
	all := make([]*layer, len(descs))
	parent := digest.Digest("")
	for i, d := range descs {
		id := identity.ChainID(diffIDs[:i+1])
		all[i] = &layer{
			number: i, source: transfer.Plain(d), key: key{id, c.converter}, parent: parent,
			report: &Layer{Source: d.Digest, SourceID: diffIDs[i], SourceSize: d.Size, Chain: id},
			bar:    c.cfg.Bars.Add(transfer.Short(d.Digest)),
		}
		all[i].bar.Phase("waiting", 0)
		parent = id
	}
	return all
}

// become makes e what the layer was converted to.
func (l *layer) become(e entry) {
	l.out = e.descriptor()
	l.report.Digest, l.report.Size = e.Digest, e.Size
}

// wrap says in an error which layer it is about.
func (l *layer) wrap(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	var named layerError
	if errors.As(err, &named) {
		return err
	}
	return layerError{l.number, l.source.Digest, err}
}

// layerError is an error of a layer.
type layerError struct {
	number int
	digest digest.Digest
	err    error
}

func (e layerError) Error() string {
	return fmt.Sprintf("layer %d (%s): %v", e.number, e.digest, e.err)
}
func (e layerError) Unwrap() error { return e.err }

// convertLayers converts layers, of which the first ones were before.
func (c *conversion) convertLayers(ctx context.Context, layers []*layer, reused int) (err error) {
	options := c.cfg.layerOptions()
	options.Compression.Workers, options.Dir = max(1, c.cfg.Workers/cap(c.writers)), c.dir
	chain, err := layerconvert.NewChain(options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, chain.Close()) }()
	for i, l := range layers[:reused] {
		b, err := c.cfg.Destination.Open(l.out)
		if err == nil {
			err = chain.Skip(ctx, b)
		}
		if ctx.Err() != nil {
			return l.wrap(err)
		}
		if err != nil && l.base {
			return l.wrap(fmt.Errorf("it can not be built on: %w", err))
		}
		if err != nil { // whoever remembered it was wrong
			c.cfg.Note(fmt.Sprintf("%s can not be built on, and is converted again: %v", l.out.Digest, err))
			for _, again := range layers[i:reused] {
				again.report.Reused = false
			}
			reused = i
			break
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.addLayers(ctx, g, chain, layers[reused:]) })
	return g.Wait()
}

// addLayers adds layers to the chain, one after the other, and leaves the rest
// of each to goroutines of g.
func (c *conversion) addLayers(ctx context.Context, g *errgroup.Group, chain *layerconvert.Chain, layers []*layer) error {
	var ahead *stream
	for i, l := range layers {
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		s, err := ahead, error(nil)
		if s == nil {
			s, err = c.open(ctx, g, l)
		}
		if err == nil && i+1 < len(layers) {
			ahead, err = c.open(ctx, g, layers[i+1])
		}
		if err != nil {
			<-c.slots
			return err
		}
		made, err := addLayer(ctx, chain, s, l)
		if err != nil {
			<-c.slots
			return l.wrap(err)
		}
		g.Go(func() error {
			defer func() { <-c.slots }()
			return l.wrap(c.finish(ctx, l, made))
		})
	}
	return nil
}

func addLayer(ctx context.Context, chain *layerconvert.Chain, s *stream, l *layer) (*layerconvert.Layer, error) {
	made, err := chain.Add(ctx, s.out.reader(ctx), layerconvert.ID{ChainID: l.key.Chain, ParentChainID: l.parent})
	if err != nil {
		return nil, err
	}
	if err := s.finish(ctx); err != nil {
		return nil, errors.Join(err, made.Close())
	}
	return made, nil
}

// open starts to read a layer of the source.
func (c *conversion) open(ctx context.Context, g *errgroup.Group, l *layer) (*stream, error) {
	b, err := c.cfg.Source.Open(l.source)
	if err != nil {
		return nil, l.wrap(err)
	}
	l.bar.Phase("reading", l.source.Size)
	return c.stream(ctx, g, b, l), nil
}

// finish compresses and stores what was made of a layer.
func (c *conversion) finish(ctx context.Context, l *layer, made *layerconvert.Layer) (err error) {
	closed := false
	defer func() {
		if !closed {
			err = errors.Join(err, made.Close())
		}
	}()
	select {
	case c.writers <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	f, err := c.transfer.TempFile()
	if err != nil {
		<-c.writers
		return err
	}
	defer f.Close()
	l.bar.Phase("compressing "+terminal.Bytes(made.ContentSize()), 0)
	b, err := made.Write(ctx, f)
	<-c.writers
	if err != nil {
		return fmt.Errorf("compressing: %w", err)
	}
	closed = true
	if err := made.Close(); err != nil { // room for others
		return err
	}
	e := entry{Key: l.key, Digest: b.Digest, Size: b.Size, Chunks: table(b.Chunks)}
	l.become(e)
	if l.report.Stored, err = c.transfer.Upload(ctx, l.out, f, l.bar); err != nil {
		return err
	}
	l.bar.Done(fmt.Sprintf("%s, %s", terminal.Bytes(b.Size), l.report.Stored))
	c.remember(e)
	c.cfg.Stored(l.report)
	return nil
}

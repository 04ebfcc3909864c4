package convert

import (
	"context"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// found is a converted layer of an image that is known.
type found struct {
	entry
	from *source.Content
}

// learn collects the converted layers of the known images. What can't be read
// is not known.
func (c *conversion) learn(ctx context.Context) error {
	c.found = map[key]found{}
	for _, from := range c.cfg.Known {
		if err := c.learnFrom(ctx, from, from.Root, 0); err != nil {
			if ctx.Err() != nil {
				return err
			}
			c.cfg.Note(fmt.Sprintf("no layers of %s are reused: %v", from.Name, err))
		}
	}
	return nil
}

func (c *conversion) learnFrom(ctx context.Context, from *source.Content, desc ocispec.Descriptor, depth int) error {
	if depth > source.MaxDepth {
		return source.ErrDepth
	}
	n, err := from.Document(ctx, desc)
	if err != nil {
		return err
	}
	for _, d := range n.Children {
		if _, is := source.Attestation(d); is {
			continue
		}
		if err := c.learnFrom(ctx, from, d, depth+1); err != nil {
			return err
		}
	}
	for _, d := range n.Manifest.Layers {
		if e, ok := annotated(d); ok {
			c.found[e.Key] = found{e, from}
		}
	}
	return nil
}

// annotated reads from a layer's annotations what it was converted from.
func annotated(d ocispec.Descriptor) (entry, bool) {
	l, err := labels.Parse(d.Annotations)
	if err != nil || l.Trace || l.Blob != d.Digest || l.BlobSize != d.Size {
		return entry{}, false
	}
	ref, err := labels.Chunks(d.Annotations)
	if err != nil {
		return entry{}, false
	}
	o, ok := labels.ParseOrigin(d.Annotations)
	e := entry{Key: key{o.SourceChain, o.Converter}, Digest: d.Digest, Size: d.Size, Chunks: table(ref)}
	return e, ok && e.valid()
}

// reuse gives the layers, from the bottom on, the blobs they were converted to
// before, and returns for how many that was possible.
func (c *conversion) reuse(ctx context.Context, layers []*layer) (int, error) {
	for n, l := range layers {
		if l.base {
			stored, err := c.transfer.Copy(ctx, c.cfg.Source, l.source, l.bar)
			if err != nil {
				return n, l.wrap(err)
			}
			l.report.Reused, l.report.Stored = true, stored
			l.bar.Done("as it is, " + string(stored))
			continue
		}
		e, stored, err := c.reusable(ctx, l)
		if err != nil {
			return n, l.wrap(err)
		}
		if stored == "" {
			return n, nil
		}
		l.become(e)
		l.report.Reused, l.report.Stored = true, stored
		l.bar.Done("converted before, " + string(stored))
		c.remember(e)
	}
	return len(layers), nil
}

// reusable returns the blob that l was converted to before, which the
// destination has after it; stored is empty if there is none.
func (c *conversion) reusable(ctx context.Context, l *layer) (_ entry, stored Stored, err error) {
	if e, ok := c.cfg.Cache.lookup(l.key); ok {
		stored, ok, err := c.transfer.Find(ctx, e.descriptor(), append(e.Repositories, c.transfer.Repositories(nil)...))
		if err != nil || ok {
			return e, stored, err
		}
	}
	f, ok := c.found[l.key]
	if !ok {
		return entry{}, "", nil
	}
	stored, err = c.transfer.Copy(ctx, f.from, f.descriptor(), l.bar)
	if err != nil {
		// It may be gone; then it is made again.
		if ctx.Err() != nil {
			return entry{}, "", err
		}
		c.cfg.Note(fmt.Sprintf("%s can not be reused: %v", f.Digest, err))
		return entry{}, "", nil
	}
	return f.entry, stored, nil
}

// remember writes e to the cache, as something the destination has. That this
// can't be done costs later conversions something, but this one nothing: it is
// said once.
func (c *conversion) remember(e entry) {
	if r := c.destinationRepository(); r != "" {
		e.Repositories = []string{r}
	}
	if err := c.cfg.Cache.add(e); err != nil {
		c.forgetful.Do(func() { c.cfg.Note(fmt.Sprintf("converted layers are not remembered for later: %v", err)) })
	}
}

// descriptor returns the descriptor of the layer, with its annotations.
func (e entry) descriptor() ocispec.Descriptor {
	origin := labels.Converted{
		Blob: e.Digest, BlobSize: e.Size, FSType: fsType,
		SourceChain: e.Key.Chain, Converter: e.Key.Converter,
	}
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: e.Digest, Size: e.Size,
		Annotations: origin.Annotations(labels.WithChunks(chunks.Ref(e.Chunks))),
	}
}

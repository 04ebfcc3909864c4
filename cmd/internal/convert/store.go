package convert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

// present reports whether the destination has a blob, or could take it from one
// of the repositories.
func (c *conversion) present(ctx context.Context, desc ocispec.Descriptor, repositories []string) (Stored, bool, error) {
	there, err := c.cfg.Destination.Exists(ctx, desc)
	if err != nil || there {
		return StoredPresent, there, err
	}
	m, ok := c.cfg.Destination.(destination.Mounter)
	if !ok {
		return "", false, nil
	}
	for _, from := range repositories {
		if mounted, err := m.Mount(ctx, desc, from); err != nil || mounted {
			return StoredMounted, mounted, err
		}
	}
	return "", false, nil
}

// upload puts a blob that lies in a file, unless the destination can have it
// without.
func (c *conversion) upload(ctx context.Context, desc ocispec.Descriptor, f *os.File, bar *terminal.Bar) (Stored, error) {
	stored, ok, err := c.present(ctx, desc, c.repositories(nil))
	if err != nil || ok {
		return stored, err
	}
	bar.Phase("uploading", desc.Size)
	content := &progressReader{SectionReader: io.NewSectionReader(f, 0, desc.Size), bar: bar}
	return StoredUploaded, c.cfg.Destination.Put(ctx, desc, content)
}

// putDocument puts a manifest, index or config.
func (c *conversion) putDocument(ctx context.Context, d document) error {
	return c.cfg.Destination.Put(ctx, d.desc, bytes.NewReader(d.text))
}

// copyBlob makes a blob of another image one of the destination.
func (c *conversion) copyBlob(ctx context.Context, from *source.Content, desc ocispec.Descriptor, bar *terminal.Bar) (Stored, error) {
	stored, ok, err := c.present(ctx, desc, c.repositories(from))
	if err != nil || ok {
		return stored, err
	}
	b, err := from.Open(desc)
	if err != nil {
		return "", err
	}
	f, err := c.tempFile()
	if err != nil {
		return "", err
	}
	defer f.Close()
	bar.Phase("downloading", desc.Size)
	if err := fetch(ctx, b, f, bar); err != nil {
		return "", fmt.Errorf("copying %s: %w", desc.Digest, err)
	}
	bar.Phase("uploading", desc.Size)
	content := &progressReader{SectionReader: io.NewSectionReader(f, 0, desc.Size), bar: bar}
	return StoredCopied, c.cfg.Destination.Put(ctx, desc, content)
}

// repositories returns where a blob may be mounted from: the repository of an
// image that has it, the source's, and those of known images.
func (c *conversion) repositories(has *source.Content) []string {
	var all []string
	for _, from := range append([]*source.Content{has, c.cfg.Source}, c.cfg.Known...) {
		if r := repository(from); r != "" && !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	return all
}

// repository returns the repository of an image, or "".
func repository(from *source.Content) string {
	if from == nil || from.Kind != source.KindRegistry {
		return ""
	}
	named, err := reference.ParseNormalizedNamed(from.Name)
	if err != nil {
		return ""
	}
	return named.Name()
}

// destinationRepository returns the repository of the destination, or "".
func (c *conversion) destinationRepository() string {
	if m, ok := c.cfg.Destination.(destination.Mounter); ok {
		return m.Repository()
	}
	return ""
}

// tempFile returns a file that goes when it is closed, whatever becomes of this
// process.
func (c *conversion) tempFile() (*os.File, error) {
	f, err := os.CreateTemp(c.dir, "blob-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// progressReader tells a bar what is read.
type progressReader struct {
	*io.SectionReader
	bar *terminal.Bar
}

// Read implements io.Reader.
func (r *progressReader) Read(p []byte) (int, error) {
	n, err := r.SectionReader.Read(p)
	r.bar.Add(int64(n))
	return n, err
}

// ReadAt implements io.ReaderAt. What is sent a second time shows as such.
func (r *progressReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.SectionReader.ReadAt(p, off)
	r.bar.Set(off + int64(n))
	return n, err
}

// copyTree makes an image of the source, whatever its format, one of the
// destination, without a name.
func (c *conversion) copyTree(ctx context.Context, desc ocispec.Descriptor, report *Image) error {
	n, err := c.cfg.Source.Document(ctx, desc)
	if err != nil {
		return err
	}
	for _, d := range n.Children {
		if err := c.copyTree(ctx, d, nil); err != nil {
			return err
		}
	}
	blobs := n.Blobs()
	stored := make([]Stored, len(blobs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(c.cfg.Concurrency)
	for i, d := range blobs {
		if images.IsNonDistributable(d.MediaType) {
			continue // whoever needs it fetches it elsewhere
		}
		bar := c.cfg.Bars.Add(short(d.Digest))
		g.Go(func() (err error) {
			stored[i], err = c.copyBlob(gctx, c.cfg.Source, d, bar)
			bar.Done(string(stored[i]))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, d := range n.Manifest.Layers {
		if report == nil {
			break
		}
		report.Layers = append(report.Layers, &Layer{
			Source: d.Digest, SourceSize: d.Size, Digest: d.Digest, Size: d.Size, Reused: true,
			Stored: stored[i+1], // the first one is the config
		})
	}
	return c.putDocument(ctx, document{plain(n.Desc), n.Text})
}

// plain returns a descriptor with what identifies content.
func plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

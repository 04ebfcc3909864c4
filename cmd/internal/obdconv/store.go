package obdconv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/cmd/internal/imagestore"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// store makes the blob of a committed layer and puts it into the content store.
func (c *conversion) store(ctx context.Context, l *layer) error {
	info, err := c.snapshots.Stat(ctx, l.snapshot)
	if err != nil {
		return fmt.Errorf("looking at its snapshot: %w", err)
	}
	path := info.Labels[labels.LocalCommit]
	if path == "" {
		return fmt.Errorf("snapshotter %s did not make a layer of it: its snapshot has no label %s", c.cfg.Snapshotter, labels.LocalCommit)
	}
	select {
	case c.writers <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	f, b, err := c.write(ctx, l, path)
	<-c.writers
	if err != nil {
		return fmt.Errorf("compressing: %w", err)
	}
	defer f.Close() // it was removed already
	l.out = ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: b.Digest, Size: b.Size,
		Annotations: labels.Native{Blob: b.Digest, BlobSize: b.Size, FSType: c.fsType(), Chunks: b.Chunks}.Annotations(),
	}
	if err := c.put(ctx, l, f); err != nil {
		return fmt.Errorf("storing: %w", err)
	}
	l.bar.Done(terminal.Bytes(b.Size))
	return nil
}

// write writes the blob of the layer in the file at path to a temporary file, which
// goes when it is closed.
func (c *conversion) write(ctx context.Context, l *layer, path string) (*os.File, backstore.Blob, error) {
	var b backstore.Blob
	from, err := blob.OpenFile(path)
	if err != nil {
		return nil, b, fmt.Errorf("opening what the snapshotter committed, which must be on this machine: %w", err)
	}
	defer from.Close()
	sealed, err := backstore.OpenLayer(ctx, from)
	if err != nil {
		return nil, b, err
	}
	f, err := os.CreateTemp(c.dir, "blob-")
	if err != nil {
		return nil, b, err
	}
	l.bar.Phase("compressing", from.Size())
	id := lsmt.Identity{UUID: uuid(l.chain), Parent: uuid(l.parent)}
	b, err = backstore.WriteBlob(ctx, f, c.cfg.Compression, func(w io.Writer) error {
		return sealed.Commit(ctx, &shown{w, l.bar}, id)
	})
	if err = errors.Join(err, os.Remove(f.Name())); err != nil {
		return nil, b, errors.Join(err, f.Close())
	}
	return f, b, nil
}

// shown tells a bar what is written.
type shown struct {
	io.Writer
	bar *terminal.Bar
}

// Write implements io.Writer.
func (s *shown) Write(p []byte) (int, error) {
	n, err := s.Writer.Write(p)
	s.bar.Add(int64(n))
	return n, err
}

// uuid returns the UUID of the layer of a chain ID, as overlaybd's convertor makes
// it: the first 32 digits, formatted. "" has none.
func uuid(chain digest.Digest) string {
	if chain == "" {
		return ""
	}
	h := chain.Encoded()
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:32]
}

// put copies a blob into the content store.
func (c *conversion) put(ctx context.Context, l *layer, f *os.File) error {
	l.bar.Phase("storing", l.out.Size)
	cs := c.cfg.Client.ContentStore()
	ref := fmt.Sprintf("%s-%d", c.id, l.number)
	from := io.TeeReader(io.NewSectionReader(f, 0, l.out.Size), &shown{io.Discard, l.bar})
	uncompressed := content.WithLabels(map[string]string{"containerd.io/uncompressed": l.out.Digest.String()})
	err := content.WriteBlob(ctx, cs, ref, from, l.out, uncompressed)
	if err != nil { // an upload that is not finished stays
		clean, cancel := imagestore.Cleaning(ctx)
		defer cancel()
		_ = cs.Abort(clean, ref)
	}
	return err
}

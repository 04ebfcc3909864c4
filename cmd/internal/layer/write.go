package layer

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/cmd/internal/newfile"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// Source is what can be written as a committed layer: *lsmt.Layer is one, and a
// stack of layers, *lsmt.Image.
type Source interface {
	// Commit writes the LSMT stream.
	Commit(ctx context.Context, w io.Writer, id lsmt.Identity) error
}

// Output is where a layer is written, and how.
type Output struct {
	Path string
	// Force allows to replace a file that exists.
	Force bool
	// Identity is what the layer says about itself; what is empty is the
	// source's, or null.
	Identity lsmt.Identity
	Form     Form
	// Anonymous saves the pass over the file that its digest takes, if it has no
	// chunk table.
	Anonymous bool
	// Progress is told about bytes of the LSMT stream as they are written.
	// Optional.
	Progress func(bytes int64)
}

// Written describes a layer that was written.
type Written struct {
	Path   string        `json:"path"`
	Digest digest.Digest `json:"digest,omitempty"`
	Size   int64         `json:"bytes"`
	// Stream is the length of the LSMT stream.
	Stream int64 `json:"stream_bytes"`
	// Annotations are those that a manifest states of the blob.
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Write writes src as a committed layer to a file, which appears when it is
// complete and on disk.
func Write(ctx context.Context, src Source, to Output) (Written, error) {
	if err := to.Form.Validate(); err != nil {
		return Written{}, err
	}
	done := Written{Path: to.Path}
	err := newfile.Write(to.Path, to.Force, func(f *os.File) error {
		b, err := to.Form.write(ctx, f, func(w io.Writer) error {
			return src.Commit(ctx, &counter{w, &done.Stream, to.Progress}, to.Identity)
		})
		if err == nil && b.Digest == "" && !to.Anonymous {
			b.Digest, err = sum(ctx, f, b.Size)
		}
		if err != nil {
			return fmt.Errorf("writing %s: %w", to.Path, err)
		}
		done.Digest, done.Size = b.Digest, b.Size
		if to.Form.Tar && b.Digest != "" {
			done.Annotations = map[string]string{
				labels.BlobDigest: b.Digest.String(),
				labels.BlobSize:   strconv.FormatInt(b.Size, 10),
			}
			maps.Copy(done.Annotations, labels.WithChunks(b.Chunks))
		}
		return nil
	})
	return done, err
}

// counter counts what passes through it.
type counter struct {
	io.Writer
	bytes    *int64
	progress func(int64)
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	*c.bytes += int64(n)
	if c.progress != nil {
		c.progress(int64(n))
	}
	return n, err
}

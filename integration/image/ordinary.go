package image

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Ordinary makes the gzip-compressed tar layer of the tree at root, as every
// container runtime knows it.
func (l Layout) Ordinary(ctx context.Context, root string) (Layer, error) {
	plain := sha256.New()
	desc, err := l.Blob(ocispec.MediaTypeImageLayerGzip, func(f *os.File) error {
		z := gzip.NewWriter(f)
		b := bufio.NewWriterSize(io.MultiWriter(z, plain), 1<<20)
		cmd := exec.CommandContext(ctx, "tar", "--create", "--numeric-owner", "--sort=name", "--directory", root, ".")
		cmd.Stdout = b
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("running tar: %w", err)
		}
		if err := b.Flush(); err != nil {
			return err
		}
		return z.Close()
	})
	return Layer{desc, digest.NewDigest(digest.SHA256, plain)}, err
}

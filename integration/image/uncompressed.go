package image

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Uncompressed makes a layout in the new folder dir of the same image with plain
// tar layers.
func (l Layout) Uncompressed(dir string, args []string) (Layout, error) {
	_, m, err := l.Manifest()
	if err != nil {
		return Layout{}, err
	}
	out := Layout{dir}
	var layers []Layer
	for _, d := range m.Layers {
		desc, err := out.Blob(ocispec.MediaTypeImageLayer, func(f *os.File) error { return l.decompress(d, f) })
		if err != nil {
			return Layout{}, fmt.Errorf("decompressing layer %s: %w", d.Digest, err)
		}
		layers = append(layers, Layer{desc, desc.Digest})
	}
	_, err = out.Finish(layers, args)
	return out, err
}

func (l Layout) decompress(d ocispec.Descriptor, to io.Writer) error {
	f, err := os.Open(l.BlobPath(d))
	if err != nil {
		return err
	}
	defer f.Close()
	var r io.Reader = f
	switch {
	case strings.HasSuffix(d.MediaType, "+gzip"):
		if r, err = gzip.NewReader(f); err != nil {
			return err
		}
	case strings.HasSuffix(d.MediaType, "+zstd"):
		z, err := zstd.NewReader(f)
		if err != nil {
			return err
		}
		defer z.Close()
		r = z
	}
	_, err = io.Copy(to, r)
	return err
}

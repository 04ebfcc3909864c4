package node

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// Conversion is what `reprise convert --json` reports of an image for one
// platform.
type Conversion struct {
	// Digest is that of the converted image's manifest.
	Digest digest.Digest
	Images []struct{ Layers []ConvertedLayer }
}

// ConvertedLayer is what became of a layer.
type ConvertedLayer struct {
	// Source and Digest are those of the blobs.
	Source, Digest digest.Digest
	// Size is that of the converted blob in bytes.
	Size int64
	// Reused says that it had been converted before.
	Reused bool
	// Stored says how the blob came to its place: "uploaded", "mounted"...
	Stored string
}

// Layers returns the layers of the only image, bottom first.
func (c Conversion) Layers() []ConvertedLayer {
	if len(c.Images) != 1 {
		return nil
	}
	return c.Images[0].Layers
}

// Convert runs `reprise convert` without a cache of earlier conversions.
func (n *Node) Convert(ctx context.Context, src, dst string, flags ...string) (Conversion, error) {
	argv := append([]string{n.Path("bin/reprise"), "convert", "--json", "--cache-dir", ""}, flags...)
	out, err := n.Run(ctx, append(argv, src, dst)...)
	if err != nil {
		return Conversion{}, err
	}
	return ParseConversion(out)
}

// ParseConversion reads the report of `reprise convert --json`.
func ParseConversion(out string) (Conversion, error) {
	var c Conversion
	err := json.Unmarshal([]byte(out), &c)
	if err == nil && len(c.Images) == 0 {
		err = fmt.Errorf("it lists no image: %.200s", out)
	}
	if err != nil {
		return c, fmt.Errorf("reading the report of a conversion: %w", err)
	}
	return c, nil
}

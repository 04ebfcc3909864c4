package fetchplan

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/tracelayer"
)

// packed is how many of 100 bytes an extent may take at most to be stored
// compressed: most of a plan is compressed already, and unpacking takes time.
const packed = 90

// fill sums the extents and, unless data is nil, writes their bytes to it.
func fill(ctx context.Context, layers []Layer, extents []tracelayer.Extent, data io.Writer) error {
	var buf []byte
	for i := range extents {
		e := &extents[i]
		if int64(cap(buf)) < e.Size {
			buf = make([]byte, e.Size)
		}
		p := buf[:e.Size]
		if err := blob.ReadFull(ctx, layers[e.Layer].Blob, p, e.Off); err != nil {
			return fmt.Errorf("reading layer %d (%s): %w", e.Layer, layers[e.Layer].Digest, err)
		}
		e.Sum = sha256.Sum256(p)
		if data == nil {
			continue
		}
		frame, err := tracelayer.Pack(p)
		if err != nil {
			return fmt.Errorf("compressing an extent: %w", err)
		}
		if len(frame)*100 > len(p)*packed {
			frame = p
		}
		if _, err := data.Write(frame); err != nil {
			return fmt.Errorf("writing the data: %w", err)
		}
		e.Stored = int64(len(frame))
	}
	return nil
}

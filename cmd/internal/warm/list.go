package warm

import (
	"context"
	"fmt"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/files"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/tracelayer"
)

// piece is how many bytes of a file in a list are read at once.
const piece = 256 << 10

// fetchList reads the files that a priority list names, in order.
func (im *image) fetchList(ctx context.Context, text []byte) error {
	paths, err := tracelayer.ParseList(text)
	if err != nil {
		return fmt.Errorf("%w: %w", errInvalid, err)
	}
	layers, err := im.openLayers()
	if err != nil {
		return err
	}
	dev, err := backstore.Open(ctx, layers)
	if err != nil {
		return err
	}
	ranges, missing, err := files.Ranges(ctx, dev, paths)
	if err != nil {
		return err
	}
	im.left += int64(len(missing))
	buf := make([]byte, piece)
	for _, r := range ranges {
		for off, end := r.Off, r.Off+r.Size; off < end; off += piece {
			n := min(piece, end-off)
			if im.w.cfg.MaxBytes > 0 && im.spent+n > im.w.cfg.MaxBytes {
				im.left += end - off
				break
			}
			im.spent += n
			if err := blob.ReadFull(ctx, dev, buf[:n], off); err != nil {
				return err
			}
		}
	}
	return nil
}

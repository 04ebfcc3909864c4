package backstore

import (
	"fmt"
	"io"

	"github.com/reprise-containers/reprise/backstore/tarblob"
	"github.com/reprise-containers/reprise/backstore/zfile"
)

// WriteLayer writes a layer blob to t, an empty file: a tar archive around a
// ZFile around the LSMT stream that write writes, such as
//
//	func(w io.Writer) error { return lsmt.CommitDisk(ctx, w, disk, opts) }
//
// The ZFile gets its final values in the header, so that readers need no
// request for the trailer.
func WriteLayer(t tarblob.Target, opts zfile.Options, write func(w io.Writer) error) error {
	archive, err := tarblob.NewUnsizedWriter(t)
	if err != nil {
		return fmt.Errorf("writing layer blob: %w", err)
	}
	opts.FinalHeader = true
	if _, err := zfile.Stream(archive, opts, write); err != nil {
		return fmt.Errorf("writing layer blob: %w", err)
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("writing layer blob: %w", err)
	}
	return nil
}

package inspect

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// Chunks describes the chunk table in a layer blob.
type Chunks struct {
	// Root is what header and index hash to.
	Root   digest.Digest `json:"root"`
	Offset int64         `json:"offset"`
	Size   int64         `json:"size"`
	// Index is the part of Size that a reader needs before all else: header
	// and index.
	Index  int64 `json:"index_bytes"`
	Chunks int64 `json:"chunks"`
	FanOut int   `json:"fan_out"` // chunks a page
	// Covered is the number of bytes of the blob that the chunks have.
	Covered int64 `json:"covered_bytes"`
	// Stated is what the layer's annotations say of the table: "yes" the
	// same, "no" nothing, "wrong" something else, or what no reader takes.
	Stated string `json:"stated"`
}

// describeChunks describes the chunk table of the layer blob b, if it has one.
// It reads header and index.
func describeChunks(ctx context.Context, b blob.Blob, d backstore.Description) (*Chunks, error) {
	at, ok, err := backstore.FindChunks(ctx, b, d)
	if !ok || err != nil {
		return nil, err
	}
	table, err := chunks.Open(ctx, blob.Section(b, at.Offset, at.Size), "")
	if err != nil {
		return nil, err
	}
	c := &Chunks{
		Root: table.Root(), Offset: at.Offset, Size: at.Size, Index: table.HeadSize(),
		Chunks: table.Len(), FanOut: table.FanOut(), Covered: table.Covered(), Stated: "wrong",
	}
	said, err := labels.Chunks(b.Descriptor().Annotations)
	switch {
	case err != nil: // reprise check tells what is wrong with them
	case said.IsZero():
		c.Stated = "no"
	case said.ValidateIn(b.Size()) != nil:
	case said == chunks.Ref{Root: c.Root, Offset: c.Offset, Size: c.Size}:
		c.Stated = "yes"
	}
	return c, nil
}

// printChunks writes a table of the chunk tables, if there are any.
func (r *Report) printChunks(w io.Writer) {
	if !slices.ContainsFunc(r.Layers, func(l Layer) bool { return l.Chunks != nil }) {
		return
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "LAYER\tCHUNK TABLE\tOF BLOB\tINDEX\tCHUNKS\tSTATED\tROOT")
	for i, l := range r.Layers {
		c := l.Chunks
		if c == nil {
			fmt.Fprintf(w, "%d\tnone\t-\t-\t-\t-\t-\n", i)
			continue
		}
		fmt.Fprintf(w, "%d\t%s\t%.1f%%\t%s\t%d\t%s\t%s\n", i, terminal.Bytes(c.Size), 100*float64(c.Size)/float64(max(l.Size, 1)),
			terminal.Bytes(c.Index), c.Chunks, c.Stated, c.Root)
	}
}

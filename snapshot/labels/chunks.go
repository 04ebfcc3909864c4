package labels

import (
	"strconv"

	"github.com/reprise-containers/reprise/remote/blob/chunks"
)

// Keys of the chunk table within a layer's blob. All three or none are there.
const (
	// ChunksRoot is the root digest of the table.
	ChunksRoot = prefix + "overlaybd/reprise.chunks-root"
	// ChunksOffset is where the table starts in the blob, decimal bytes.
	ChunksOffset = prefix + "overlaybd/reprise.chunks-offset"
	// ChunksSize is the length of the table, decimal bytes.
	ChunksSize = prefix + "overlaybd/reprise.chunks-size"
)

// Chunks returns where annotations or labels say that the chunk table of a
// layer's blob is, the zero value if they name none. The error names the key
// and is errdefs.ErrInvalidArgument. Whether the table fits the blob is for
// chunks.Ref.Validate.
func Chunks(annotations map[string]string) (chunks.Ref, error) {
	p := parser{labels: annotations}
	ref := chunks.Ref{Root: p.digest(ChunksRoot), Offset: p.size(ChunksOffset), Size: p.size(ChunksSize)}
	if p.err == nil && !ref.IsZero() {
		for _, key := range []string{ChunksRoot, ChunksOffset, ChunksSize} {
			if annotations[key] == "" {
				p.fail(key, "missing beside the other two of a chunk table")
			}
		}
		if err := ref.Validate(MaxBlobSize); err != nil {
			p.fail(ChunksRoot, "%v", err)
		}
	}
	if p.err != nil {
		return chunks.Ref{}, p.err
	}
	return ref, nil
}

// WithChunks returns the annotations that say where a chunk table is: none for
// the zero value.
func WithChunks(ref chunks.Ref) map[string]string {
	if ref.IsZero() {
		return map[string]string{}
	}
	return map[string]string{
		ChunksRoot:   ref.Root.String(),
		ChunksOffset: strconv.FormatInt(ref.Offset, 10),
		ChunksSize:   strconv.FormatInt(ref.Size, 10),
	}
}

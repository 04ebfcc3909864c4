package labels

import (
	"strconv"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/remote/blob/chunks"
)

// Native is what the annotations of an overlaybd layer say that was made here, of
// what a file system was written to.
type Native struct {
	Blob     digest.Digest
	BlobSize int64 // bytes
	// FSType is "type[;mount options[;mkfs options]]".
	FSType string
	// Chunks is where the chunk table is.
	Chunks chunks.Ref
}

// Annotations returns the annotations for the descriptor of the layer.
func (n Native) Annotations() map[string]string {
	out := WithChunks(n.Chunks)
	out[BlobDigest] = n.Blob.String()
	out[BlobSize] = strconv.FormatInt(n.BlobSize, 10)
	out[Version] = versionNative
	if n.FSType != "" {
		out[FSType] = n.FSType
	}
	return out
}

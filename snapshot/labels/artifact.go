package labels

import (
	"strconv"

	"github.com/opencontainers/go-digest"
)

// Artifact types of manifests that refer to an image.
const (
	// TablesArtifact is that of manifests whose layers are the chunk tables of
	// an image's layers, and the media type of each table. It is described in
	// docs/convert.md.
	TablesArtifact = "application/vnd.reprise.chunks.v1"
	// ConvertedArtifact is that of converted manifests and indexes that refer
	// to their source; upstream's.
	ConvertedArtifact = "application/vnd.containerd.overlaybd.native.v1+json"
)

// DetachedTable is what the annotations of a chunk table say that is a blob of
// its own.
type DetachedTable struct {
	// Blob and BlobSize (bytes) describe the layer that it is of.
	Blob     digest.Digest
	BlobSize int64
	// Root is the root digest of the table.
	Root digest.Digest
}

// Table returns what the annotations of a chunk table say. All of it has to be
// there. The error names the key and is errdefs.ErrInvalidArgument.
func Table(annotations map[string]string) (DetachedTable, error) {
	p := parser{labels: annotations}
	t := DetachedTable{Blob: p.digest(BlobDigest), BlobSize: p.size(BlobSize), Root: p.digest(ChunksRoot)}
	for _, key := range []string{BlobDigest, BlobSize, ChunksRoot} {
		if _, ok := annotations[key]; !ok {
			p.fail(key, "missing beside a chunk table")
		}
	}
	if p.err != nil {
		return DetachedTable{}, p.err
	}
	return t, nil
}

// WithTable returns the annotations of a chunk table.
func WithTable(t DetachedTable) map[string]string {
	return map[string]string{
		BlobDigest: t.Blob.String(),
		BlobSize:   strconv.FormatInt(t.BlobSize, 10),
		ChunksRoot: t.Root.String(),
	}
}

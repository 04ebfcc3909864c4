package convert

import (
	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cmd/internal/transfer"
)

// Report says what was done.
type Report struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	// SourceDigest and Digest are those of the manifest or index that was
	// converted, and of what it became.
	SourceDigest digest.Digest `json:"source_digest"`
	Digest       digest.Digest `json:"digest"`
	MediaType    string        `json:"media_type"`
	// Tagged is the digest that the destination's name stands for: Digest,
	// or SourceDigest if the source was kept.
	Tagged digest.Digest `json:"tagged"`
	Images []*Image      `json:"images"`
	// Skipped are the manifests of an index that were left out.
	Skipped []Skipped `json:"skipped,omitempty"`
}

// Skipped is a manifest that is not part of the converted image.
type Skipped struct {
	Digest digest.Digest `json:"digest"`
	Reason string        `json:"reason"`
}

// Image is one converted manifest.
type Image struct {
	Platform       string        `json:"platform,omitempty"`
	SourceManifest digest.Digest `json:"source_manifest"`
	Manifest       digest.Digest `json:"manifest"`
	// Copied says that the source was an overlaybd image already.
	Copied bool `json:"copied,omitempty"`
	// Dropped are the trace layers of the source, which the image has not.
	Dropped []digest.Digest `json:"dropped_trace_layers,omitempty"`
	Layers  []*Layer        `json:"layers"`
}

// Layer is what became of a layer.
type Layer struct {
	Source   digest.Digest `json:"source"`
	SourceID digest.Digest `json:"source_diff_id"`
	Chain    digest.Digest `json:"source_chain_id"`
	// SourceSize and Size are the bytes of the blobs.
	SourceSize int64         `json:"source_size"`
	Digest     digest.Digest `json:"digest"`
	Size       int64         `json:"size"`
	// Reused says that the layer was not converted, because it was before.
	Reused bool   `json:"reused"`
	Stored Stored `json:"stored"`
}

// Stored is how a blob came to its destination.
type Stored = transfer.Stored

// Totals returns how many layers there are, how many were converted, and how
// many bytes were uploaded or copied.
func (r *Report) Totals() (layers, converted int, transferred int64) {
	for _, i := range r.Images {
		for _, l := range i.Layers {
			layers++
			if !l.Reused && !i.Copied {
				converted++
			}
			if l.Stored == transfer.Uploaded || l.Stored == transfer.Copied {
				transferred += l.Size
			}
		}
	}
	return layers, converted, transferred
}

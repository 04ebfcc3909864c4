package labels

import (
	"maps"
	"strconv"

	"github.com/opencontainers/go-digest"
)

// Keys that only converters write.
const (
	// Version is the version of the layer format.
	Version = prefix + "overlaybd/version"
	// SourceChain is the chain ID, in the image that was converted, of the
	// layer and those below it.
	SourceChain = prefix + "overlaybd/reprise.source-chain"
	// Converter names what converted the layer, and how. Layers with equal
	// SourceChain and Converter are equal.
	Converter = prefix + "overlaybd/reprise.converter"
)

// versionNative is the Version of layers that every reader of the format reads.
const versionNative = "0.1.0"

// Converted is what the annotations of a converted layer say.
type Converted struct {
	Blob     digest.Digest
	BlobSize int64 // bytes
	FSType   string
	// SourceChain and Converter tell where the layer came from, see the
	// keys.
	SourceChain digest.Digest
	Converter   string
}

// Annotations returns the annotations for the descriptor of a converted layer,
// added to those of more.
func (c Converted) Annotations(more map[string]string) map[string]string {
	out := maps.Clone(more)
	if out == nil {
		out = map[string]string{}
	}
	out[BlobDigest] = c.Blob.String()
	out[BlobSize] = strconv.FormatInt(c.BlobSize, 10)
	out[Version] = versionNative
	out[FSType] = c.FSType
	out[SourceChain] = c.SourceChain.String()
	out[Converter] = c.Converter
	return out
}

// ParseOrigin reads from the annotations of a layer where it was converted
// from; ok is false if they don't say.
func ParseOrigin(annotations map[string]string) (c Converted, ok bool) {
	c.SourceChain, c.Converter = digest.Digest(annotations[SourceChain]), annotations[Converter]
	return c, c.SourceChain.Validate() == nil && c.Converter != ""
}

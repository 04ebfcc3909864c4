package backstore

import (
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/tracelayer"
)

// MaxLayers is the number of layers one image can have.
const MaxLayers = lsmt.MaxLayers

// Image says what a merged device is made of. It is plain data:
// whoever opens it decides how Ref and Layers become bytes.
type Image struct {
	// Ref is the image reference whose repository holds the remote layers.
	// It is empty when every layer has a File.
	Ref string
	// Layers are the layers of the device, bottom first, without a trace layer.
	Layers []Layer
	// FSType is the type of the file system in the device, as the image
	// claims it; "" means that it has to be found out from the device.
	FSType string
	// Upper is the writable layer on top of Layers, of which there may be none
	// then, or nil for a device that is read only.
	Upper *lsmt.UpperFiles
	// Trace is where the recorded reads of its start are, or nil if the image
	// has none.
	Trace *TraceLayer
}

// TraceLayer says where the trace layer of an image is: in a directory, in a
// registry, or both. It is plain data, like Image.
type TraceLayer struct {
	// Layer is the trace layer's blob. Its Digest is "" if only Dir is known.
	Layer Layer
	// Dir is the directory with the unpacked members of the layer, which has a
	// file "trace" in it, or "" if it was not unpacked.
	Dir string
	// Plan says where in the blob the fetch plan is; zero if it has none.
	Plan tracelayer.Member
}

// Layer is one layer of an Image: a local file, a blob in a registry, or both.
type Layer struct {
	// Digest and Size (bytes) describe the blob in the registry. They are
	// zero for a layer that exists only locally.
	Digest digest.Digest
	Size   int64
	// Annotations are those of the blob's descriptor that matter to who reads
	// it: where its chunk table lies.
	Annotations map[string]string
	// File is a local copy of the layer, read in place of the blob, or "".
	// It may be tar-wrapped, compressed or neither.
	File string
	// Dir is the directory that a local copy of the blob belongs in, under the
	// name LayerFile, or "" if there is no place for one.
	Dir string
}

// LayerFile is the name of a layer's local copy in its directory, where
// upstream's backstore looks for one, too.
const LayerFile = "overlaybd.commit"

// Remote reports whether reading l needs a registry.
func (l Layer) Remote() bool { return l.File == "" }

// Descriptor returns the descriptor of the blob of l.
func (l Layer) Descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{Digest: l.Digest, Size: l.Size, Annotations: l.Annotations}
}

// Attachment is an image that is, or is to be, mounted.
type Attachment struct {
	// ID names the attachment and stays the same for ever.
	ID string
	// Image is what is attached.
	Image Image
	// Target is the directory it is mounted on.
	Target string
}

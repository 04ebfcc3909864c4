// Package labels is the only place that knows the strings of snapshot labels
// and layer annotations.
//
// Parse turns the label map of a request into a typed value once, at the edge;
// everything after it asks the value, above all for its Class. containerd
// copies only those annotations of a layer to labels whose key starts with
// "containerd.io/snapshot/", and it lets them override labels the client set:
// what stands here may have been written by whoever made the image.
package labels

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/tracelayer"
)

const prefix = "containerd.io/snapshot/"

// Keys set by containerd and its clients.
const (
	// Target is the name the finished layer is to be committed under.
	Target = "containerd.io/snapshot.ref"
	// DiffID is the digest of the layer's uncompressed tar.
	DiffID = prefix + "diff-id"
	// ParentChainID is the chain ID of the layers below.
	ParentChainID = prefix + "parent-chain-id"
	// ImageRef is the reference of the image, set by ctr rpull and nerdctl.
	ImageRef = prefix + "image-ref"
	// CRIImageRef is the same, set by CRI and the transfer service.
	CRIImageRef = prefix + "cri.image-ref"
	// ManifestDigest is the digest of the image's manifest, set by all who
	// use containerd's handler for snapshotters: ctr rpull, nerdctl and CRI.
	ManifestDigest = prefix + "cri.manifest-digest"
)

// Keys of the overlaybd image contract.
const (
	// BlobDigest is the digest of the layer's blob.
	BlobDigest = prefix + "overlaybd/blob-digest"
	// BlobSize is the size of the layer's blob, decimal bytes.
	BlobSize = prefix + "overlaybd/blob-size"
	// FSType is "type[;mount options[;mkfs options]]".
	FSType = prefix + "overlaybd/blob-fs-type"
	// Trace with the value "yes" marks the layer that carries a trace.
	Trace = prefix + "overlaybd/acceleration-layer"
	// Download with the value "download" asks for blobs instead of lazy reads.
	Download = prefix + "overlaybd/download-remote-blob"
	// RecordTrace with the value "yes" asks for a trace of this container.
	RecordTrace = prefix + "overlaybd/record-trace"
	// Writable asks for a writable device in place of overlayfs.
	Writable = prefix + "overlaybd.writable"
	// VirtualSize is the size in GiB of a device that has nothing below it.
	VirtualSize = prefix + "overlaybd/vsize"
	// Type with the value "image" says that a snapshot is a step in the making of
	// an image and not the root of a container.
	Type = prefix + "type"
	// LocalCommit is the path of the file with a layer that was written here; the
	// snapshotter sets it for those who make images.
	LocalCommit = prefix + "overlaybd.localcommitpath"
	// TurboDigest is the digest of the layer a TurboOCI layer indexes.
	TurboDigest = prefix + "overlaybd/turbo-oci/target-digest"
	// TurboDigestOld is the key TurboDigest had when it was called fastoci.
	TurboDigestOld = prefix + "overlaybd/fastoci/target-digest"
	// Remote marks a snapshot whose data is read when needed. The
	// snapshotter sets it to RemoteValue.
	Remote = prefix + "remote"
)

// RemoteValue is the value of the label Remote.
const RemoteValue = "remote snapshot"

// MaxBlobSize is the largest blob size in bytes taken for real: 16 TiB.
const MaxBlobSize = 1 << 44

// Labels is the meaning of a snapshot's labels.
type Labels struct {
	// Target is the name to commit a layer under. It is not always a chain
	// ID, and empty if the snapshot is no layer of an image being unpacked.
	Target string
	// Image is the image reference, or "".
	Image string
	// Manifest is the digest of the image's manifest, or "".
	Manifest digest.Digest
	// Blob and BlobSize (bytes) describe the layer's blob, or are zero.
	Blob     digest.Digest
	BlobSize int64
	// DiffID and ParentChainID are as containerd's unpacker states them.
	DiffID, ParentChainID digest.Digest
	// FSType is the bare type of the file system, or "".
	FSType string
	// FS is all that is said of the file system, with options. It counts only
	// where a client prepares something to be written: an image doesn't choose
	// options for the node.
	FS string
	// Trace marks the layer that carries a trace.
	Trace bool
	// Download asks for the blob instead of lazy reads.
	Download bool
	// Plan is where the plan lies in the blob of a trace layer, the zero value
	// if there is none or what the labels say of it can't be.
	Plan tracelayer.Member
	// RecordTrace asks for the reads of this container to be recorded, and
	// RecordPath names the file for them, "" if the node is to choose.
	RecordTrace bool
	RecordPath  string
	// Turbo marks a TurboOCI layer.
	Turbo bool
	// Remote marks a snapshot whose data is read when needed.
	Remote bool
	// Writable is what takes the writes of a container.
	Writable WritableMode
	// VirtualSize is the size in bytes of a device that has nothing below it, 0
	// if that is left to the node.
	VirtualSize int64
	// Build says that the snapshot is a step in the making of an image.
	Build bool
}

// Parse reads labels, of which unknown ones are ignored. The error names the
// label and is errdefs.ErrInvalidArgument.
func Parse(labels map[string]string) (Labels, error) {
	p := parser{labels: labels}
	l := Labels{
		Target:        labels[Target],
		Image:         p.image(),
		Manifest:      p.digest(ManifestDigest),
		Blob:          p.digest(BlobDigest),
		BlobSize:      p.size(BlobSize),
		DiffID:        p.digest(DiffID),
		ParentChainID: p.digest(ParentChainID),
		FSType:        p.fsType(FSType),
		FS:            labels[FSType],
		Trace:         labels[Trace] == "yes",
		Download:      labels[Download] == "download",
		RecordTrace:   labels[RecordTrace] == "yes",
		RecordPath:    p.recordPath(RecordTracePath),
		Turbo:         labels[TurboDigest] != "" || labels[TurboDigestOld] != "",
		Remote:        labels[Remote] != "",
		Writable:      ParseWritable(labels[Writable]),
		VirtualSize:   p.virtualSize(VirtualSize),
		Build:         labels[Type] == "image",
	}
	if p.err != nil {
		return Labels{}, p.err
	}
	// A bad plan makes the trace layer one without a plan, which containerd
	// unpacks: a start that is slower than it could be is no reason for none.
	l.Plan, _ = Plan(labels)
	return l, nil
}

// WithRemote returns a copy of labels that marks a remote snapshot.
func WithRemote(labels map[string]string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	out[Remote] = RemoteValue
	return out
}

// parser keeps the first error, so that Parse reads as a list of fields.
type parser struct {
	labels map[string]string
	err    error
}

func (p *parser) fail(key, format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("label %s: %s: %w", key, fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
	}
}

// image prefers the key that CRI writes itself over any annotation.
func (p *parser) image() string {
	for _, key := range []string{CRIImageRef, ImageRef} {
		v := p.labels[key]
		if v == "" {
			continue
		}
		if _, err := reference.ParseNormalizedNamed(v); err != nil {
			p.fail(key, "%q is not an image reference: %v", v, err)
			return ""
		}
		return v
	}
	return ""
}

func (p *parser) digest(key string) digest.Digest {
	v, ok := p.labels[key]
	if !ok {
		return ""
	}
	d, err := digest.Parse(v)
	if err != nil {
		p.fail(key, "%q is not a digest: %v", v, err)
	}
	return d
}

func (p *parser) size(key string) int64 {
	v, ok := p.labels[key]
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(v, 10, 64)
	switch {
	case err != nil:
		p.fail(key, "%q is not a number of bytes", v)
	case n <= 0 || n > MaxBlobSize:
		p.fail(key, "%d bytes is outside 1 to %d", n, int64(MaxBlobSize))
	}
	return n
}

// virtualSize reads a number of GiB. The limit is that of a device, 1 EiB less one
// sector, rounded down.
func (p *parser) virtualSize(key string) int64 {
	const most = 1 << 29
	v, ok := p.labels[key]
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(v, 10, 64)
	switch {
	case err != nil:
		p.fail(key, "%q is not a number of GiB", v)
	case n <= 0 || n > most:
		p.fail(key, "%d GiB is outside 1 to %d", n, most)
	default:
		return n << 30
	}
	return 0
}

func (p *parser) fsType(key string) string {
	v, ok := p.labels[key]
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(v, ";")
	if len(name) > 16 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		p.fail(key, "%q is not a file system type", name)
	}
	return name
}

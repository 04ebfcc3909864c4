package labels

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/tracelayer"
)

// Keys of the fetch plan within the blob of a trace layer. All three or none
// are there.
const (
	// PlanOffset is where the plan starts in the blob, decimal bytes.
	PlanOffset = prefix + "overlaybd/reprise.plan-offset"
	// PlanSize is the length of the plan, decimal bytes.
	PlanSize = prefix + "overlaybd/reprise.plan-size"
	// PlanDigest is the digest of the plan.
	PlanDigest = prefix + "overlaybd/reprise.plan-digest"
)

// RecordTracePath names, beside RecordTrace, the empty file that takes the
// trace; upstream's. It counts only on the snapshot of a container.
const RecordTracePath = prefix + "overlaybd/record-trace-path"

// TraceArtifact is the artifact type of manifests that carry a trace of the
// image they refer to. Their one layer is the blob of a trace layer, annotated
// like one; they may have the annotation TraceWorkload, and are ordered by
// org.opencontainers.image.created.
const TraceArtifact = "application/vnd.reprise.trace.v1"

// TraceWorkload is the annotation of a TraceArtifact that says which use of the
// image was recorded, for nodes to choose by. It is a free word.
const TraceWorkload = "dev.reprise.trace.workload"

const (
	// maxRecordPath bounds RecordTracePath, so that names made from it fit.
	maxRecordPath = 1024
	// tarBlock is what members of a tar archive are aligned to, and the size
	// of their headers and of either half of its end.
	tarBlock = 512
)

// Plan returns where the annotations or labels of a trace layer say that its
// plan is, the zero value if they name none. The plan lies within the blob, if
// they state its size. The error names the key and is
// errdefs.ErrInvalidArgument.
func Plan(annotations map[string]string) (tracelayer.Member, error) {
	p := parser{labels: annotations}
	m := tracelayer.Member{Offset: p.size(PlanOffset), Size: p.size(PlanSize), Digest: p.digest(PlanDigest)}
	blob := p.size(BlobSize)
	if p.err == nil && m != (tracelayer.Member{}) {
		p.plan(m, blob)
	}
	if p.err != nil {
		return tracelayer.Member{}, p.err
	}
	return m, nil
}

// plan checks where a plan is said to be, in a blob of some bytes if not 0.
func (p *parser) plan(m tracelayer.Member, blob int64) {
	for _, key := range []string{PlanOffset, PlanSize, PlanDigest} {
		if p.labels[key] == "" {
			p.fail(key, "missing beside the other two of a plan")
		}
	}
	switch {
	case p.err != nil:
	case m.Digest.Algorithm() != digest.SHA256:
		p.fail(PlanDigest, "%q is not a SHA-256", m.Digest)
	case m.Offset%tarBlock != 0:
		p.fail(PlanOffset, "%d is not a multiple of %d", m.Offset, tarBlock)
	case m.Size > tracelayer.MaxPlan:
		p.fail(PlanSize, "%d bytes are more than %d", m.Size, tracelayer.MaxPlan)
	case blob != 0 && m.Size > blob-m.Offset: // neither overflows: all are below MaxBlobSize
		p.fail(PlanOffset, "%d bytes at %d are not within a blob of %d", m.Size, m.Offset, blob)
	}
}

// WithPlan returns the annotations that say where a plan is: none for the zero
// value.
func WithPlan(m tracelayer.Member) map[string]string {
	if m == (tracelayer.Member{}) {
		return map[string]string{}
	}
	return map[string]string{
		PlanOffset: strconv.FormatInt(m.Offset, 10),
		PlanSize:   strconv.FormatInt(m.Size, 10),
		PlanDigest: m.Digest.String(),
	}
}

// TraceBlob is what the annotations of a trace layer say.
type TraceBlob struct {
	Blob     digest.Digest
	BlobSize int64 // bytes
	// FSType is copied as it is from the layer below, "" if that has none.
	FSType string
	// Plan is where the plan is, the zero value if there is none.
	Plan tracelayer.Member
}

// Annotations returns the annotations for the descriptor of a trace layer.
func (t TraceBlob) Annotations() map[string]string {
	out := WithPlan(t.Plan)
	out[BlobDigest] = t.Blob.String()
	out[BlobSize] = strconv.FormatInt(t.BlobSize, 10)
	out[Version] = versionNative
	out[Trace] = "yes"
	if t.FSType != "" {
		out[FSType] = t.FSType
	}
	return out
}

// IsTrace reports whether the annotations of a layer say that it carries a
// trace, and so is no layer of the device.
func IsTrace(annotations map[string]string) bool { return annotations[Trace] == "yes" }

// recordPath returns the file that is to take a trace.
func (p *parser) recordPath(key string) string {
	v, ok := p.labels[key]
	if !ok {
		return ""
	}
	switch {
	case len(v) > maxRecordPath:
		p.fail(key, "it is longer than %d bytes", maxRecordPath)
	case !filepath.IsAbs(v), filepath.Clean(v) != v, v == "/", strings.ContainsRune(v, 0):
		p.fail(key, "%q is not the absolute path of a file", v)
	}
	return v
}

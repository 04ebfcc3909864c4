// Package attached reads and chooses among the traces that are attached to an
// image: artifacts of the type labels.TraceArtifact that refer to its manifest.
//
// Whoever can push to a repository can attach what he wants, and a list may name
// what is gone. So an artifact that can not be read, or is none, is left out and
// said to be, and the others count.
package attached

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

// ErrArtifact is wrapped by errors about artifacts that are no traces of the image
// that they are listed for.
var ErrArtifact = errors.New("it is no trace of the image")

// Trace is a trace that is attached to an image.
type Trace struct {
	// Artifact describes the artifact's manifest, with the annotations that are
	// in it.
	Artifact ocispec.Descriptor
	// Workload is the use of the image that was recorded; may be empty.
	Workload string
	// Created is when it was made, as it says; the zero time if it does not.
	Created time.Time
	// Layer is the trace layer's blob: its digest is one, its size positive.
	Layer ocispec.Descriptor
	// Plan is where the fetch plan is within the blob, the zero value if the
	// annotations of Layer do not say it, or can not be right.
	Plan tracelayer.Member
}

// Parse parses the manifest of an artifact that desc describes and that is to refer
// to the manifest subject. The error wraps ErrArtifact.
func Parse(desc ocispec.Descriptor, manifest []byte, subject digest.Digest) (Trace, error) {
	t, err := parse(desc, manifest, subject)
	if err != nil {
		return Trace{}, fmt.Errorf("%w: %w", ErrArtifact, err)
	}
	return t, nil
}

func parse(desc ocispec.Descriptor, manifest []byte, subject digest.Digest) (Trace, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return Trace{}, err
	}
	switch {
	case m.Subject == nil || m.Subject.Digest != subject:
		return Trace{}, errors.New("it does not refer to it")
	case len(m.Layers) != 1:
		return Trace{}, fmt.Errorf("it has %d layers", len(m.Layers))
	}
	l := m.Layers[0]
	switch {
	case !labels.IsTrace(l.Annotations):
		return Trace{}, errors.New("its layer is not annotated as a trace layer")
	case l.Digest.Validate() != nil || l.Size <= 0 || l.Size > labels.MaxBlobSize:
		return Trace{}, fmt.Errorf("its layer is described as %q of %d bytes", l.Digest, l.Size)
	}
	desc.Annotations = m.Annotations
	t := Trace{Artifact: desc, Workload: workloadOf(desc), Created: createdOf(desc), Layer: l}
	// A plan that can not be where it is said to be can still be looked for.
	if plan, err := labels.Plan(l.Annotations); err == nil && plan.Offset+plan.Size <= l.Size {
		t.Plan = plan
	}
	return t, nil
}

// workloadOf returns the workload that the annotations of an artifact name.
func workloadOf(d ocispec.Descriptor) string { return d.Annotations[labels.TraceWorkload] }

// createdOf returns when the annotations of an artifact say that it was made.
func createdOf(d ocispec.Descriptor) time.Time {
	at, _ := time.Parse(time.RFC3339, d.Annotations[ocispec.AnnotationCreated])
	return at
}

package inspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/attached"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// Trace describes a trace layer.
type Trace struct {
	Blob
	// Reads is the number of records of a trace, Files that of a list.
	Reads int `json:"reads,omitempty"`
	Files int `json:"files,omitempty"`
	// Extents and Planned (bytes of layers) are those of the fetch plan, Data
	// the bytes of it that the layer has.
	Extents int   `json:"extents,omitempty"`
	Planned int64 `json:"planned_bytes,omitempty"`
	Data    int64 `json:"data_bytes,omitempty"`
	// Foreign says of which other layers than the image's the plan is.
	Foreign string `json:"foreign,omitempty"`
	// Problem says why there is no more to say.
	Problem string `json:"problem,omitempty"`
}

// Attached is a trace that refers to the image.
type Attached struct {
	Artifact digest.Digest `json:"artifact"`
	Workload string        `json:"workload,omitempty"`
	Created  *time.Time    `json:"created,omitempty"`
	// Layer is the trace layer in it, and Plan the bytes of its fetch plan.
	Layer Blob  `json:"layer"`
	Plan  int64 `json:"plan_bytes"`
}

// traces describes the traces of an image: those of its layers, and those that
// refer to it. Of the latter it reads the manifests.
func (r *Report) traces(ctx context.Context, img *source.Image, m *meter) error {
	for _, b := range img.Stale {
		r.Stale = append(r.Stale, describeBlob(b))
	}
	if img.Trace != nil {
		r.Trace = describeTrace(ctx, img, m)
	}
	err := r.attached(ctx, img, m)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil { // the image is no worse for it
		r.AttachedError = err.Error()
	}
	return nil
}

func describeTrace(ctx context.Context, img *source.Image, m *meter) *Trace {
	t := &Trace{Blob: describeBlob(img.Trace)}
	rec, err := traces.OpenLayer(ctx, blob.Observe(img.Trace, m), false)
	if err != nil {
		t.Problem = err.Error()
		return t
	}
	t.Reads, t.Files = len(rec.Trace), len(rec.Paths)
	if len(rec.Notes) > 0 {
		t.Problem = rec.Notes[0]
	}
	if rec.Plan != nil {
		t.Extents, t.Planned, t.Data = len(rec.Plan.Extents), rec.Plan.Size(), rec.Plan.DataSize()
		t.Foreign = traces.Differences(traces.PlanLayers(img.Descriptors()), rec.Plan.Layers)
	}
	return t
}

// contents says what is in a trace layer.
func (t *Trace) contents() string {
	s := ""
	switch {
	case t.Files > 0:
		s = ", a list of " + counted(t.Files, "file")
	case t.Reads > 0:
		s = ", " + counted(t.Reads, "read")
	}
	if t.Extents > 0 {
		s += fmt.Sprintf(", a plan of %s in %s", terminal.Bytes(t.Planned), counted(t.Extents, "range"))
	}
	if t.Data > 0 {
		s += fmt.Sprintf(" with %s of data", terminal.Bytes(t.Data))
	}
	if t.Foreign != "" {
		s += ", which is of another image"
	}
	if t.Problem != "" {
		s += ": " + t.Problem
	}
	return s
}

func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// attached lists the traces that refer to the image.
func (r *Report) attached(ctx context.Context, img *source.Image, m *meter) error {
	list, err := img.Referrers(ctx, labels.TraceArtifact)
	if err != nil {
		return err
	}
	read := func(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
		text, err := img.Read(ctx, d)
		m.ObserveRead(len(text), 0, err, blob.Demand)
		return text, err
	}
	all, skipped, err := attached.All(ctx, read, list, img.Manifest.Digest)
	for _, t := range all {
		r.Attached = append(r.Attached, describeAttached(t))
	}
	return errors.Join(append(skipped, err)...)
}

func describeAttached(t attached.Trace) Attached {
	l := t.Layer
	out := Attached{
		Artifact: t.Artifact.Digest, Workload: t.Workload, Plan: t.Plan.Size,
		Layer: Blob{Digest: l.Digest, MediaType: l.MediaType, Size: l.Size, Annotations: l.Annotations},
	}
	if !t.Created.IsZero() {
		out.Created = &t.Created
	}
	return out
}

// printAttached writes a table of the traces that refer to the image, if there
// are any.
func (r *Report) printAttached(w io.Writer) error {
	if r.AttachedError != "" {
		fmt.Fprintf(w, "\nattached traces: %s\n", r.AttachedError)
	}
	if len(r.Attached) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ATTACHED TRACE\tWORKLOAD\tCREATED\tLAYER\tSIZE\tPLAN")
	for _, a := range r.Attached {
		workload, created, plan := a.Workload, "-", "-"
		if workload == "" {
			workload = "-"
		}
		if a.Created != nil {
			created = a.Created.Format(time.RFC3339)
		}
		if a.Plan > 0 {
			plan = terminal.Bytes(a.Plan)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", short(a.Artifact.String()), workload, created,
			short(a.Layer.Digest.String()), terminal.Bytes(a.Layer.Size), plan)
	}
	return tw.Flush()
}

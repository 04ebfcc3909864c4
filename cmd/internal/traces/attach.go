package traces

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/attached"
	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/cmd/internal/transfer"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

// AttachConfig says which recorded start is attached to which image.
type AttachConfig struct {
	// Image is an overlaybd image, and Store the repository or layout that it
	// is in.
	Image *source.Content
	Store destination.Store
	// Platform selects from a multi-platform image. Empty: this host's.
	Platform string
	// Recording is what is attached.
	Recording *Recording
	// Workload is the key of the trace: it takes the place of another one
	// with the same key. May be empty.
	Workload string
	// NoData leaves the data out: whoever replays fetches the ranges of the
	// plan from the layers.
	NoData bool
	// Rebuild makes plan and data anew and believes nothing of what the
	// recording says of its image, but for the reads themselves.
	Rebuild bool
	// Created is stated as the time of the trace; zero: the recording's.
	Created time.Time
	// Dir holds temporary files; "" is the system's.
	Dir string
	// Bars shows what goes on; nil shows nothing.
	Bars *terminal.Bars
	// Note is told what somebody should know.
	Note func(string)
}

// Attachment says what was attached.
type Attachment struct {
	Image    string        `json:"image"`
	Platform string        `json:"platform,omitempty"`
	Manifest digest.Digest `json:"manifest"`
	// Artifact is the digest of the artifact's manifest, which refers to
	// Manifest, and Layer and Size (bytes) describe the trace layer in it.
	Artifact digest.Digest `json:"artifact"`
	Layer    digest.Digest `json:"layer"`
	Size     int64         `json:"size"`
	Workload string        `json:"workload,omitempty"`
	Created  time.Time     `json:"created"`
	// Reads is the number of records of the trace, Files that of a list.
	Reads int `json:"reads,omitempty"`
	Files int `json:"files,omitempty"`
	// Extents and Planned (bytes of the layers) are those of the plan, and
	// Data the bytes that the trace layer has of them.
	Extents int   `json:"extents"`
	Planned int64 `json:"planned_bytes"`
	Data    int64 `json:"data_bytes"`
	// Rebuilt says that the plan was made for this.
	Rebuilt bool `json:"rebuilt"`
}

// attacher is one run of Attach.
type attacher struct {
	cfg      AttachConfig
	transfer transfer.Transfer
	target   target
	report   *Attachment
}

// Attach makes a trace layer of a recording and an artifact with it that refers
// to an image, which does not change. The same input gives the same artifact.
func Attach(ctx context.Context, cfg AttachConfig) (_ *Attachment, err error) {
	dir, err := os.MkdirTemp(cfg.Dir, "reprise-attach-")
	if err != nil {
		return nil, fmt.Errorf("making a temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	from := []*source.Content{cfg.Image}
	if w := cfg.Recording.whole; w != nil && w.from != nil {
		from = append(from, w.from)
	}
	a := attacher{
		cfg:      cfg,
		transfer: transfer.Transfer{To: cfg.Store, From: from, Dir: dir, Note: cfg.Note},
		report:   &Attachment{Image: cfg.Image.Name, Workload: cfg.Workload},
	}
	if err := a.run(ctx); err != nil {
		return nil, fmt.Errorf("attaching %s to %s: %w", cfg.Recording.Name, cfg.Image.Name, err)
	}
	return a.report, nil
}

func (a *attacher) run(ctx context.Context) (err error) {
	if a.target, err = choose(ctx, a.cfg.Image, a.cfg.Platform); err != nil {
		return err
	}
	desc := a.target.doc.Desc
	a.report.Manifest = desc.Digest
	if desc.Platform != nil {
		a.report.Platform = platforms.Format(*desc.Platform)
	}
	r := a.cfg.Recording
	for _, n := range r.Notes {
		a.cfg.Note(n)
	}
	a.report.Reads, a.report.Files = len(r.Trace), len(r.Paths)
	if r.Layers != nil && !a.cfg.Rebuild {
		if diff := Differences(a.target.plan(), r.Layers); diff != "" {
			return fmt.Errorf("%w: %s; if only the compression differs, make the plan anew (--rebuild)", ErrOtherImage, diff)
		}
	}
	if n := Foreign(r.Trace, len(a.target.layers)); n > 0 {
		return fmt.Errorf("%w: %d of %d reads are of more layers than the %d that there are", ErrOtherImage, n, len(r.Trace), len(a.target.layers))
	}
	bar := a.cfg.Bars.Add("trace")
	layer, err := a.layer(ctx, bar)
	if err != nil {
		return err
	}
	bar.Done(terminal.Bytes(layer.Size))
	a.report.Layer, a.report.Size = layer.Digest, layer.Size
	return a.artifact(ctx, layer)
}

// layer stores the trace layer and returns its descriptor.
func (a *attacher) layer(ctx context.Context, bar *terminal.Bar) (ocispec.Descriptor, error) {
	r := a.cfg.Recording
	again := a.cfg.Rebuild || r.Plan == nil || !a.cfg.NoData && r.Data == nil && len(r.Plan.Extents) > 0
	if w := r.whole; w != nil && !again && (r.Data == nil || !a.cfg.NoData) {
		a.planned(r.Plan)
		return a.reuse(ctx, w, bar)
	}
	plan, data := r.Plan, r.Data
	if again {
		bar.Phase("reading what it is of", 0)
		f, err := a.transfer.TempFile()
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		defer f.Close()
		if plan, data, err = a.rebuild(ctx, f); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	if a.cfg.NoData {
		data = nil
	}
	c := tracelayer.Contents{Slot: r.Slot}
	var err error
	if c.Plan, err = planText(plan, data != nil); err != nil {
		return ocispec.Descriptor{}, err
	}
	if data != nil {
		c.Data, c.DataSize = reader(ctx, data), data.Size()
	}
	a.planned(plan)
	a.report.Data = c.DataSize
	return a.write(ctx, c, bar)
}

func (a *attacher) planned(p *tracelayer.Plan) {
	a.report.Extents, a.report.Planned, a.report.Data = len(p.Extents), p.Size(), p.DataSize()
}

// rebuild makes plan and data for the layers of the image, the latter in f.
func (a *attacher) rebuild(ctx context.Context, f *os.File) (*tracelayer.Plan, blob.ReaderAt, error) {
	a.report.Rebuilt = true
	layers := make([]blob.Blob, len(a.target.layers))
	for i, d := range a.target.layers {
		b, err := a.cfg.Image.Open(d)
		if err != nil {
			return nil, nil, fmt.Errorf("opening layer %d (%s): %w", i, d.Digest, err)
		}
		layers[i] = b
	}
	to := f
	if a.cfg.NoData {
		to = nil
	}
	plan, notes, err := Rebuild(ctx, a.cfg.Recording, layers, to)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range notes {
		a.cfg.Note(n)
	}
	if to == nil || plan.DataSize() == 0 {
		return plan, nil, nil
	}
	return plan, file{f, plan.DataSize()}, nil
}

// reuse makes a whole trace layer that there is one of the image's repository.
func (a *attacher) reuse(ctx context.Context, w *whole, bar *terminal.Bar) (ocispec.Descriptor, error) {
	if w.from == nil {
		f, err := a.transfer.TempFile()
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		defer f.Close()
		sum := digest.SHA256.Digester()
		n, err := io.Copy(io.MultiWriter(f, sum.Hash()), reader(ctx, w.blob))
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		d := a.describe(tracelayer.LayerInfo{Digest: sum.Digest(), Size: n, Plan: a.cfg.Recording.Member})
		_, err = a.transfer.Upload(ctx, d, f, bar)
		return d, err
	}
	is := w.blob.Descriptor()
	d := a.describe(tracelayer.LayerInfo{Digest: is.Digest, Size: is.Size, Plan: a.cfg.Recording.Member})
	_, err := a.transfer.Copy(ctx, w.from, d, bar)
	return d, err
}

// write makes a trace layer and stores it.
func (a *attacher) write(ctx context.Context, c tracelayer.Contents, bar *terminal.Bar) (ocispec.Descriptor, error) {
	f, err := a.transfer.TempFile()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer f.Close()
	info, err := tracelayer.WriteLayer(f, c)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := a.describe(info)
	_, err = a.transfer.Upload(ctx, d, f, bar)
	return d, err
}

// describe returns the descriptor of the trace layer.
func (a *attacher) describe(info tracelayer.LayerInfo) ocispec.Descriptor {
	t := labels.TraceBlob{Blob: info.Digest, BlobSize: info.Size, Plan: info.Plan}
	t.FSType = a.target.layers[len(a.target.layers)-1].Annotations[labels.FSType]
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: info.Digest, Size: info.Size, Annotations: t.Annotations(),
	}
}

// artifact stores the manifest that has the trace layer and refers to the image.
func (a *attacher) artifact(ctx context.Context, layer ocispec.Descriptor) error {
	created := a.cfg.Created
	if created.IsZero() {
		created = a.cfg.Recording.Time
	}
	if created.IsZero() { // older than any that says when it was made
		created = time.Unix(0, 0)
	}
	a.report.Created = created.UTC().Truncate(time.Second)
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: labels.TraceArtifact, Config: ocispec.DescriptorEmptyJSON,
		Layers: []ocispec.Descriptor{layer}, Subject: new(transfer.Plain(a.target.doc.Desc)),
		Annotations: map[string]string{ocispec.AnnotationCreated: a.report.Created.Format(time.RFC3339)},
	}
	m.Config.Data = nil // not every registry knows it
	if a.cfg.Workload != "" {
		m.Annotations[labels.TraceWorkload] = a.cfg.Workload
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	desc := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	a.report.Artifact = desc.Digest
	if err := a.cfg.Store.Put(ctx, m.Config, bytes.NewReader([]byte("{}"))); err != nil {
		return err
	}
	if s, ok := a.cfg.Store.(destination.Replacer); ok {
		err = s.PutReferrer(ctx, desc, bytes.NewReader(text), func(d ocispec.Descriptor) bool { return a.superseded(ctx, d) })
	} else {
		err = a.cfg.Store.Put(ctx, desc, bytes.NewReader(text))
	}
	if err != nil {
		return err
	}
	a.hidden(ctx, desc.Digest)
	return nil
}

// superseded reports whether a referrer is a trace with the same key. A list need
// not have the key: then it is in the manifest.
func (a *attacher) superseded(ctx context.Context, d ocispec.Descriptor) bool {
	if d.ArtifactType != labels.TraceArtifact {
		return false
	}
	if d.Annotations != nil {
		return d.Annotations[labels.TraceWorkload] == a.cfg.Workload
	}
	all, _, err := attached.All(ctx, a.cfg.Image.Read, []ocispec.Descriptor{d}, a.report.Manifest)
	return err == nil && len(all) == 1 && all[0].Workload == a.cfg.Workload
}

// hidden notes a trace with the same key that is newer and still listed, because the
// registry keeps the list: nodes go on to take that.
func (a *attacher) hidden(ctx context.Context, artifact digest.Digest) {
	list, err := a.cfg.Image.Referrers(ctx, a.report.Manifest, labels.TraceArtifact)
	var best attached.Trace
	var ok bool
	if err == nil {
		q := attached.Query{Subject: a.report.Manifest, Workload: a.cfg.Workload, Exact: true}
		best, ok, _, err = attached.Choose(ctx, a.cfg.Image.Read, list, q)
	}
	switch {
	case err != nil: // what was to be done is done
		a.cfg.Note(fmt.Sprintf("it is attached, but what else is can not be told: %v", err))
	case ok && best.Artifact.Digest != artifact && best.Created.After(a.report.Created):
		a.cfg.Note(fmt.Sprintf("%s has the same workload, is newer and still listed, so nodes go on to take that: state a later time with SOURCE_DATE_EPOCH", best.Artifact.Digest))
	}
}

// file is a temporary file as a blob.ReaderAt.
type file struct {
	*os.File
	size int64 // bytes
}

// Size implements blob.ReaderAt.
func (f file) Size() int64 { return f.size }

// ReadAt implements blob.ReaderAt.
func (f file) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

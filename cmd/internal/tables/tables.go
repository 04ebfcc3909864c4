// Package tables makes the layers of an image that was made elsewhere
// verifiable: it computes their chunk tables and attaches them to the image as
// an artifact, a referrer. The image does not change.
//
// The artifact is described in docs/convert.md, the tables in docs/chunks.md.
package tables

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// parallel is how many layers are read at a time.
const parallel = 4

// Config says what tables are made for, and where they go.
type Config struct {
	// Image is an overlaybd image, and Store the repository or layout that
	// it is in.
	Image *source.Content
	Store destination.Store
	// Platform selects from a multi-platform image. Empty: all.
	Platform string
	// Bars shows each layer; nil shows nothing.
	Bars *terminal.Bars
}

// Report says what was attached.
type Report struct {
	Image     string     `json:"image"`
	Manifests []Manifest `json:"manifests"`
}

// Manifest is an image manifest and what was attached to it.
type Manifest struct {
	Platform string        `json:"platform,omitempty"`
	Digest   digest.Digest `json:"digest"`
	// Artifact is the digest of the artifact's manifest; empty if every
	// layer has a table of its own.
	Artifact digest.Digest `json:"artifact,omitempty"`
	Tables   []Table       `json:"tables"`
}

// Table is the chunk table of a layer.
type Table struct {
	Layer     digest.Digest `json:"layer"`
	LayerSize int64         `json:"layer_size"` // bytes
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"` // bytes
	Root      digest.Digest `json:"root"`
}

// Attach computes and attaches the tables of an image.
func Attach(ctx context.Context, cfg Config) (*Report, error) {
	a := attacher{cfg: cfg, report: &Report{Image: cfg.Image.Name}}
	if err := a.node(ctx, cfg.Image.Root, 0); err != nil {
		return nil, fmt.Errorf("attaching chunk tables to %s: %w", cfg.Image.Name, err)
	}
	if len(a.report.Manifests) == 0 {
		return nil, fmt.Errorf("attaching chunk tables to %s: %w", cfg.Image.Name, source.ErrNotOverlaybd)
	}
	return a.report, nil
}

type attacher struct {
	cfg    Config
	report *Report
}

// node works on a manifest, or on those of an index.
func (a *attacher) node(ctx context.Context, desc ocispec.Descriptor, depth int) error {
	if depth > source.MaxDepth {
		return source.ErrDepth
	}
	doc, err := a.cfg.Image.Document(ctx, desc)
	if err != nil {
		return err
	}
	if !doc.Index {
		if err := a.cfg.Image.CheckPlatform(ctx, desc, doc.Manifest.Config, a.cfg.Platform); err != nil {
			return err
		}
		return a.manifest(ctx, doc.Desc, doc.Manifest.Layers)
	}
	children := doc.Children
	if a.cfg.Platform != "" {
		d, err := source.Choose(children, a.cfg.Platform)
		if err != nil {
			return fmt.Errorf("index %s: %w", desc.Digest, err)
		}
		children = []ocispec.Descriptor{d}
	}
	for _, d := range children {
		if err := a.node(ctx, d, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// manifest attaches the tables of an image manifest. One of something else is
// left alone.
func (a *attacher) manifest(ctx context.Context, desc ocispec.Descriptor, layers []ocispec.Descriptor) error {
	m := Manifest{Digest: desc.Digest}
	if desc.Platform != nil {
		m.Platform = platforms.Format(*desc.Platform)
	}
	overlaybd := false
	var bare []ocispec.Descriptor
	for i, d := range layers {
		l, err := labels.Parse(d.Annotations)
		if err != nil {
			return fmt.Errorf("layer %d (%s): %w", i, d.Digest, err)
		}
		ref, err := labels.Chunks(d.Annotations)
		if err != nil {
			return fmt.Errorf("layer %d (%s): %w", i, d.Digest, err)
		}
		// A trace layer is unpacked as a whole, and so verified, or its plan
		// is by the digest in its annotations and its data by the tables of
		// the layers that they are of.
		if l.Blob != "" && !l.Trace {
			overlaybd = true
			if ref.IsZero() {
				bare = append(bare, d)
			}
		}
	}
	if !overlaybd {
		return nil
	}
	tables, err := a.tables(ctx, bare)
	if err != nil {
		return err
	}
	for _, t := range tables {
		m.Tables = append(m.Tables, t.Table)
	}
	if len(tables) > 0 {
		if m.Artifact, err = a.artifact(ctx, desc, tables); err != nil {
			return fmt.Errorf("attaching to manifest %s: %w", desc.Digest, err)
		}
	}
	a.report.Manifests = append(a.report.Manifests, m)
	return nil
}

// made is a table that is stored, with the descriptor for it.
type made struct {
	Table
	desc ocispec.Descriptor
}

// tables makes and stores the tables of layers.
func (a *attacher) tables(ctx context.Context, layers []ocispec.Descriptor) ([]made, error) {
	all := make([]made, len(layers))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, d := range layers {
		bar := a.cfg.Bars.Add(d.Digest.Encoded()[:12])
		bar.Phase("waiting", 0)
		g.Go(func() error {
			bar.Phase("reading", d.Size)
			t, err := a.table(ctx, d, bar)
			if err != nil {
				return fmt.Errorf("layer %s: %w", d.Digest, err)
			}
			bar.Done(fmt.Sprintf("%s of table", terminal.Bytes(t.Size)))
			all[i] = t
			return nil
		})
	}
	return all, g.Wait()
}

// table makes and stores the table of one layer.
func (a *attacher) table(ctx context.Context, d ocispec.Descriptor, bar *terminal.Bar) (made, error) {
	b, err := a.cfg.Image.Open(d)
	if err != nil {
		return made{}, err
	}
	b = blob.Observe(b, blob.ObserverFunc(func(n int, _ time.Duration, _ error, _ blob.Priority) { bar.Add(int64(n)) }))
	table, root, sum, err := backstore.BuildChunks(ctx, b)
	if err != nil {
		return made{}, err
	}
	if sum != d.Digest {
		// A table of these bytes would make wrong ones right.
		return made{}, fmt.Errorf("its bytes have digest %s", sum)
	}
	desc := ocispec.Descriptor{
		MediaType: labels.TablesArtifact, Digest: digest.FromBytes(table), Size: int64(len(table)),
		Annotations: labels.WithTable(labels.DetachedTable{Blob: d.Digest, BlobSize: d.Size, Root: root}),
	}
	t := Table{Layer: d.Digest, LayerSize: d.Size, Digest: desc.Digest, Size: desc.Size, Root: root}
	return made{t, desc}, a.cfg.Store.Put(ctx, desc, bytes.NewReader(table))
}

// artifact stores the manifest that lists tables and refers to subject.
func (a *attacher) artifact(ctx context.Context, subject ocispec.Descriptor, tables []made) (digest.Digest, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: labels.TablesArtifact, Config: ocispec.DescriptorEmptyJSON,
		Subject: &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
	}
	for _, t := range tables {
		m.Layers = append(m.Layers, t.desc)
	}
	m.Config.Data = nil // not every registry knows it
	text, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	desc := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	err = a.cfg.Store.Put(ctx, m.Config, bytes.NewReader([]byte("{}")))
	if err == nil {
		err = a.cfg.Store.Put(ctx, desc, bytes.NewReader(text))
	}
	return desc.Digest, err
}

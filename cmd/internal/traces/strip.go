package traces

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/cmd/internal/transfer"
)

// parallel is how many blobs are copied at a time.
const parallel = 3

// StripConfig says what is to be without its trace layers, and where.
type StripConfig struct {
	Source      *source.Content
	Destination destination.Destination
	// Dir holds a temporary directory; "" is the system's.
	Dir string
	// Bars shows each blob; nil shows nothing.
	Bars *terminal.Bars
	// Note is told what somebody should know, from several goroutines.
	Note func(string)
}

// StripReport says what was done.
type StripReport struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	// SourceDigest and Digest are those of the manifest or index before and
	// after; equal if there was no trace layer.
	SourceDigest digest.Digest `json:"source_digest"`
	Digest       digest.Digest `json:"digest"`
	Images       []Stripped    `json:"images"`
}

// Stripped is a manifest and what it lost.
type Stripped struct {
	Platform       string        `json:"platform,omitempty"`
	SourceManifest digest.Digest `json:"source_manifest"`
	Manifest       digest.Digest `json:"manifest"`
	// Dropped are the trace layers that went, bottom first.
	Dropped []digest.Digest `json:"dropped_trace_layers,omitempty"`
}

// stripper is one run of Strip.
type stripper struct {
	cfg      StripConfig
	transfer transfer.Transfer
	report   *StripReport
}

// document is a manifest or index with its descriptor.
type document struct {
	desc ocispec.Descriptor
	text []byte
}

// Strip copies an image without its trace layers. Nothing else of it changes,
// so an image without one is copied as it is. With an error, the destination's
// name stands for what it stood for before.
func Strip(ctx context.Context, cfg StripConfig) (_ *StripReport, err error) {
	dir, err := os.MkdirTemp(cfg.Dir, "reprise-strip-")
	if err != nil {
		return nil, fmt.Errorf("making a temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := stripper{
		cfg: cfg,
		transfer: transfer.Transfer{
			To: cfg.Destination, From: []*source.Content{cfg.Source},
			Dir: dir, Parallel: parallel, Bars: cfg.Bars, Note: cfg.Note,
		},
		report: &StripReport{Source: cfg.Source.Name, SourceDigest: cfg.Source.Root.Digest},
	}
	out, err := s.node(ctx, cfg.Source.Root, 0)
	if err == nil {
		err = cfg.Destination.Tag(ctx, out.desc, out.text)
	}
	if err != nil {
		return nil, fmt.Errorf("stripping %s: %w", cfg.Source.Name, err)
	}
	s.report.Digest = out.desc.Digest
	return s.report, nil
}

// node strips a manifest or index. What the result refers to is at the
// destination, itself it is not yet.
func (s *stripper) node(ctx context.Context, desc ocispec.Descriptor, depth int) (document, error) {
	if depth > source.MaxDepth {
		return document{}, source.ErrDepth
	}
	n, err := s.cfg.Source.Document(ctx, desc)
	if err != nil {
		return document{}, err
	}
	if n.Index {
		return s.index(ctx, n, depth)
	}
	return s.manifest(ctx, n)
}

// manifest strips a manifest.
func (s *stripper) manifest(ctx context.Context, n source.Document) (document, error) {
	r := Stripped{SourceManifest: n.Desc.Digest}
	if n.Desc.Platform != nil {
		r.Platform = platforms.Format(*n.Desc.Platform)
	}
	out := document{transfer.Plain(n.Desc), n.Text}
	if len(Layers(n.Manifest.Layers)) == 0 {
		if _, err := s.transfer.Blobs(ctx, s.cfg.Source, n.Blobs()); err != nil {
			return out, err
		}
		r.Manifest = out.desc.Digest
		s.report.Images = append(s.report.Images, r)
		return out, nil
	}
	config, err := s.cfg.Source.Read(ctx, n.Manifest.Config)
	if err != nil {
		return out, fmt.Errorf("reading the config of manifest %s: %w", n.Desc.Digest, err)
	}
	d, err := Drop(n.Text, config)
	if err != nil {
		return out, fmt.Errorf("manifest %s: %w", n.Desc.Digest, err)
	}
	for _, l := range d.Layers {
		r.Dropped = append(r.Dropped, l.Digest)
	}
	left, err := source.ParseDocument(n.Desc, d.Manifest)
	if err == nil {
		err = s.transfer.Document(ctx, left.Manifest.Config, d.Config)
	}
	if err == nil {
		_, err = s.transfer.Blobs(ctx, s.cfg.Source, left.Manifest.Layers)
	}
	out = changed(n.Desc, d.Manifest)
	r.Manifest = out.desc.Digest
	s.report.Images = append(s.report.Images, r)
	return out, err
}

// index strips the manifests of an index. What BuildKit attested of one that
// changes goes: it is about another manifest.
func (s *stripper) index(ctx context.Context, n source.Document, depth int) (document, error) {
	children := make([]document, len(n.Children))
	became := map[digest.Digest]digest.Digest{}
	for i, d := range n.Children {
		if _, is := source.Attestation(d); is {
			continue
		}
		out, err := s.node(ctx, d, depth+1)
		if err != nil {
			return out, err
		}
		if err := s.transfer.Document(ctx, out.desc, out.text); err != nil {
			return out, err
		}
		children[i], became[d.Digest] = out, out.desc.Digest
	}
	var gone []int
	for i, d := range n.Children {
		about, is := source.Attestation(d)
		switch {
		case !is:
		case became[about] != "" && became[about] != about:
			s.cfg.Note(fmt.Sprintf("%s is left out: an attestation of %s, which has changed", d.Digest, about))
			gone = append(gone, i)
		default:
			if _, err := s.transfer.Tree(ctx, s.cfg.Source, d); err != nil {
				return document{}, err
			}
			children[i] = document{desc: transfer.Plain(d)}
		}
	}
	return reindex(n, children, gone)
}

// reindex returns an index with other children, but for those that are gone.
// An index that does not change stays as it is.
func reindex(n source.Document, children []document, gone []int) (document, error) {
	t := text{bytes: n.Text}
	root, err := t.object(t.whole())
	if err != nil {
		return document{}, err
	}
	entries, err := t.array(root["manifests"])
	if err != nil {
		return document{}, err
	}
	if len(entries) != len(children) {
		return document{}, errTwice
	}
	var want []digest.Digest
	for i, c := range children {
		if c.desc.Digest == "" {
			continue // it is gone
		}
		want = append(want, c.desc.Digest)
		if c.desc.Digest == n.Children[i].Digest {
			continue
		}
		if err := t.describe(entries[i], c.desc, c.text); err != nil {
			return document{}, fmt.Errorf("entry %d of index %s: %w", i, n.Desc.Digest, err)
		}
	}
	t.remove(entries, gone)
	out := changed(n.Desc, t.edited())
	left, err := source.ParseDocument(out.desc, out.text)
	if err != nil {
		return document{}, err
	}
	if len(left.Children) != len(want) {
		return document{}, errTwice
	}
	for i, d := range left.Children {
		if d.Digest != want[i] {
			return document{}, errTwice
		}
	}
	return out, nil
}

// changed describes what a document became.
func changed(desc ocispec.Descriptor, text []byte) document {
	desc = transfer.Plain(desc)
	desc.Digest, desc.Size = desc.Digest.Algorithm().FromBytes(text), int64(len(text))
	return document{desc, text}
}

package replayer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/tracelayer"
)

// RangesConfig says which start is made a trace of, and how often it happens.
type RangesConfig struct {
	Image    string // reference, of an image with a recorded start
	Nodes    int    // that start it
	Every    time.Duration
	Over     time.Duration // over which the reads of one are spread
	Registry registry.Config
	Output   string
}

// patience is how reads of the image are repeated.
var patience = blob.RetryConfig{Attempts: 5, Base: 200 * time.Millisecond, Max: 5 * time.Second}

// Ranges writes a trace of nodes that start an image lazily: each asks for the
// manifest, and then for the ranges of layers that the image's recorded start needs,
// in that order.
func (p *Replayer) Ranges(ctx context.Context, c RangesConfig) (err error) {
	if c.Nodes <= 0 || c.Every < 0 || c.Over < 0 {
		return errors.New("making ranges: there must be a node, and no time may be negative")
	}
	named, err := reference.ParseDockerRef(c.Image)
	if err != nil {
		return fmt.Errorf("making ranges of %s: %w", c.Image, err)
	}
	client, err := registry.New(c.Registry)
	if err != nil {
		return err
	}
	image, err := source.OpenContent(ctx, c.Image, source.Config{Registry: chain.New(client, chain.Config{Retry: patience})})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	found, err := traces.Find(ctx, image, "", "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, found.Close()) }()
	plan := found.Plan
	if plan == nil {
		if plan, err = p.plan(ctx, image, found); err != nil {
			return fmt.Errorf("making ranges of %s: %w", c.Image, err)
		}
	}
	s := newStarts(c, named, image.Root.Size, plan)
	return p.writeTrace(ctx, s, int64(len(s.start)*c.Nodes), c.Output)
}

// plan makes the plan of a recorded start that has none, as those that overlaybd's
// own tools recorded.
func (p *Replayer) plan(ctx context.Context, image *source.Content, r *traces.Recording) (*tracelayer.Plan, error) {
	doc, err := source.ChooseManifest(ctx, image.Root, "", image.Document)
	if err != nil {
		return nil, err
	}
	var layers []blob.Blob
	for _, l := range r.Layers {
		i := slices.IndexFunc(doc.Manifest.Layers, func(d ocispec.Descriptor) bool { return d.Digest == l.Digest })
		if i < 0 {
			return nil, fmt.Errorf("%w: it has no layer %s", traces.ErrOtherImage, l.Digest)
		}
		b, err := image.Open(doc.Manifest.Layers[i])
		if err != nil {
			return nil, fmt.Errorf("opening layer %s: %w", l.Digest, err)
		}
		layers = append(layers, b)
	}
	plan, notes, err := traces.Rebuild(ctx, r, layers, nil)
	for _, n := range notes {
		p.logf("%s", n)
	}
	return plan, err
}

// starts is a trace of nodes that start an image.
type starts struct {
	start []trace.Request // of one node
	heads []int           // of each node that has begun: what it reads next
	every time.Duration
	nodes int
	zero  time.Time
}

func newStarts(c RangesConfig, named reference.Named, manifest int64, plan *tracelayer.Plan) *starts {
	s := &starts{every: c.Every, nodes: c.Nodes, zero: time.Now().UTC().Truncate(time.Millisecond)}
	repository := "v2/" + reference.Path(named)
	ref := ""
	switch n := named.(type) {
	case reference.Digested:
		ref = n.Digest().String()
	case reference.Tagged:
		ref = n.Tag()
	}
	host := reference.Domain(named)
	s.start = append(s.start, trace.Request{Method: "GET", URI: repository + "/manifests/" + ref, Host: host, Status: 200, Size: manifest})
	for i, e := range plan.Extents {
		s.start = append(s.start, trace.Request{
			Delay:  c.Over * time.Duration(i+1) / time.Duration(len(plan.Extents)),
			Method: "GET", URI: repository + "/blobs/" + plan.Layers[e.Layer].Digest.String(), Host: host,
			Status: 206, Size: e.Size, Off: e.Off, Len: e.Size,
		})
	}
	s.heads = make([]int, c.Nodes)
	return s
}

// Next implements trace.Reader.
func (s *starts) Next() (trace.Request, error) {
	node := -1
	var at time.Duration
	for i, head := range s.heads {
		if head == len(s.start) {
			continue
		}
		if t := time.Duration(i)*s.every + s.start[head].Delay; node < 0 || t < at {
			node, at = i, t
		}
		if head == 0 { // those after it begin later
			break
		}
	}
	if node < 0 {
		return trace.Request{}, io.EOF
	}
	r := s.start[s.heads[node]]
	s.heads[node]++
	r.Delay, r.Time, r.Client = at, s.zero.Add(at), "node-"+strconv.Itoa(node+1)
	return r, nil
}

package main

import (
	"context"
	"errors"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/integration/coldstart"
	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/reference"
)

// subject is an image that is in the registry in all forms.
type subject struct {
	image.Start
	// stdout is what its command prints, least the bytes of what that touches.
	stdout string
	least  int64
	// largest is a large blob of the ordinary image.
	largest digest.Digest
	dir     string
}

// Names in the registry.

func (s *subject) ordinary() string { return s.Name + ":ordinary" }
func (s *subject) lazy() string     { return s.Name + ":lazy" }
func (s *subject) traced() string   { return "" }

// variant is a way to a cold start.
type variant struct {
	name  string
	image func(*subject) string
	start func(context.Context, *node.Node, string) (coldstart.Start, error)
	// config is configuration of the snapshotter, by table.
	config map[string]string
	// once says that it takes so long that it is not repeated.
	once bool
}

var variants = []variant{
	{name: "full", image: (*subject).ordinary, start: coldstart.Full, once: true},
	{name: "lazy", image: (*subject).lazy, start: coldstart.Lazy},
}

// prepare pushes the image in all forms, at full speed.
func (b *bench) prepare(ctx context.Context, start image.Start) (*subject, error) {
	s := &subject{Start: start}
	l, err := start.Layered().Make(ctx, b.cache, say)
	if err != nil {
		return nil, err
	}
	_, m, err := l.Manifest()
	if err != nil {
		return nil, err
	}
	var size int64
	for _, layer := range m.Layers {
		if layer.Size > size {
			s.largest, size = layer.Digest, layer.Size
		}
	}
	if err := b.n.SetLine(ctx, nil); err != nil {
		return nil, err
	}
	if err := b.n.Push(ctx, l, s.ordinary()); err != nil {
		return nil, err
	}
	say("converting %s", s.Name)
	if s.dir, err = os.MkdirTemp(b.cache, "converted-"); err != nil {
		return nil, err
	}
	converted, err := coldstart.Convert(ctx, b.n, l.Dir, s.dir)
	if err != nil {
		return nil, err
	}
	if err := b.n.Push(ctx, converted, s.lazy()); err != nil {
		return nil, err
	}
	return s, b.touch(ctx, s, reference.Run{Disk: converted.Disk(), FSType: image.Erofs, Args: s.Args})
}

// touch finds out what the command needs.
func (b *bench) touch(ctx context.Context, s *subject, r reference.Run) error {
	touched, err := r.Measure(ctx, b.n.Sandbox, b.n.Containerd)
	if err != nil {
		return err
	}
	s.stdout = touched.Stdout
	s.least, err = touched.Compressed(r.Disk)
	say("%s touches %d blocks of 4 KiB, %.2f MB compressed, and takes %.2f s on a plain loop device", s.Name,
		len(touched.Blocks()), float64(s.least)/1e6, touched.Wall.Seconds())
	return err
}

// release removes what prepare left on the disk.
func (b *bench) release(ctx context.Context, s *subject) error {
	return errors.Join(b.n.Containerd.Empty(ctx), os.RemoveAll(s.dir))
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/integration/coldstart"
	"github.com/reprise-containers/reprise/integration/coldstart/report"
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
	// converted is what lazy is.
	converted image.Layout
}

// Names in the registry.

func (s *subject) ordinary() string { return s.Name + ":ordinary" }
func (s *subject) lazy() string     { return s.Name + ":lazy" }
func (s *subject) traced() string   { return s.Name + ":traced" }
func (s *subject) noData() string   { return s.Name + ":no-data" }
func (s *subject) listed() string   { return s.Name + ":listed" }

// referred is in a repository of its own: the trace beside it would be one of
// the lazy image, too.
func (s *subject) referred() string { return s.Name + "-referred:lazy" }

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
	{name: report.Lazy, image: (*subject).lazy, start: coldstart.Lazy},
	{name: report.Traced, image: (*subject).traced, start: coldstart.Lazy},
	{name: "referrer", image: (*subject).referred, start: coldstart.Lazy, config: map[string]string{"trace": "referrers = true\n"}},
	{name: "no-data", image: (*subject).noData, start: coldstart.Lazy},
	{name: "list", image: (*subject).listed, start: coldstart.Lazy},
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
	if s.converted, err = coldstart.Convert(ctx, b.n, l.Dir, b.n.Path("converted-"+s.Name)); err != nil {
		return nil, err
	}
	for _, name := range []string{s.lazy(), s.referred()} {
		if err := b.n.Push(ctx, s.converted, name); err != nil {
			return nil, err
		}
	}
	if err := b.touch(ctx, s); err != nil {
		return nil, err
	}
	if err := b.record(ctx, s); err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	return s, nil
}

// plain is the image's command on a plain loop device.
func (s *subject) plain() reference.Run {
	return reference.Run{Disk: s.converted.Disk(), FSType: image.Erofs, Args: s.Args}
}

// touch finds out what the command needs.
func (b *bench) touch(ctx context.Context, s *subject) error {
	touched, err := s.plain().Measure(ctx, b.n.Sandbox, b.n.Containerd)
	if err != nil {
		return err
	}
	s.stdout = touched.Stdout
	s.least, err = touched.Compressed(s.converted.Disk())
	say("%s touches %d blocks of 4 KiB, %.2f MB compressed, and takes %.2f s on a plain loop device", s.Name,
		len(touched.Blocks()), float64(s.least)/1e6, touched.Wall.Seconds())
	return err
}

// record makes the images with a trace, as a user would.
func (b *bench) record(ctx context.Context, s *subject) error {
	ref := b.n.Ref
	if !b.wants(s, s.traced(), s.referred(), s.noData(), s.listed()) && b.pairs == 0 {
		return nil
	}
	if _, err := b.n.Containerd.Rpull(ctx, ref(s.lazy())); err != nil {
		return err
	}
	if err := b.recordAs(ctx, s, s.traced()); err != nil {
		return err
	}
	if b.wants(s, s.referred()) {
		// The trace is the same one: so the two can be compared.
		if _, err := b.n.Run(ctx, b.n.Path("bin/reprise"), "trace", "attach", "--from", ref(s.traced()), ref(s.referred())); err != nil {
			return err
		}
	}
	if b.wants(s, s.noData()) {
		if err := b.recordAs(ctx, s, s.noData(), "--no-data"); err != nil {
			return err
		}
	}
	if !b.wants(s, s.listed()) {
		return nil
	}
	files, err := s.plain().Files(ctx, b.n.Sandbox, b.n.Containerd)
	if err != nil {
		return err
	}
	list := b.n.Path(s.Name + ".list")
	if err := os.WriteFile(list, []byte(strings.Join(files, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	return b.recordAs(ctx, s, s.listed(), "--priority_list", list)
}

// recordTime is longer, in seconds, than a start without a trace takes.
const recordTime = "120"

// recordAs records a start of the lazy image and pushes it with the trace under
// a name.
func (b *bench) recordAs(ctx context.Context, s *subject, name string, flags ...string) error {
	out, err := b.n.Containerd.RecordTrace(ctx, append(flags, "--time", recordTime), b.n.Ref(s.lazy()), b.n.Ref(name))
	if err != nil {
		return err
	}
	say("%s: %s", name, strings.ReplaceAll(strings.TrimSpace(out), "\n", "; "))
	_, err = b.n.Containerd.Push(ctx, b.n.Ref(name))
	return err
}

// wants reports whether one of the image's names is started.
func (b *bench) wants(s *subject, names ...string) bool {
	return slices.ContainsFunc(b.variants, func(v variant) bool { return slices.Contains(names, v.image(s)) })
}

// release removes what prepare left on the disk.
func (b *bench) release(ctx context.Context, s *subject) error {
	return errors.Join(b.n.Containerd.Empty(ctx), os.RemoveAll(s.converted.Dir))
}

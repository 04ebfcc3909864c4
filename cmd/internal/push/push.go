package push

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/cmd/internal/transfer"
)

// push is one run.
type push struct {
	cfg  Config
	repo string                // of the destination, with the registry's host
	host string                // of the destination
	tag  string                // the complete reference
	own  string                // the repository of the image's name, "" if that is none
	seen map[digest.Digest]int // index of tree.blobs

	noting sync.Mutex // held while Config.Note is called
}

func (p *push) note(format string, args ...any) {
	p.noting.Lock()
	defer p.noting.Unlock()
	p.cfg.Note(fmt.Sprintf(format, args...))
}

func newPush(cfg Config) (*push, error) {
	named, err := reference.ParseNormalizedNamed(cfg.Ref)
	if err != nil {
		return nil, err
	}
	p := &push{
		cfg: cfg, repo: named.Name(), host: reference.Domain(named),
		tag: reference.TagNameOnly(named).String(), seen: map[digest.Digest]int{},
	}
	if local, err := reference.ParseNormalizedNamed(cfg.Image.Name); err == nil {
		p.own = local.Name()
	}
	return p, nil
}

func (p *push) run(ctx context.Context) (*Report, error) {
	root, err := p.choose(ctx, p.cfg.Image.Target)
	if err != nil {
		return nil, err
	}
	var t tree
	if err := p.walk(ctx, &t, root, 0); err != nil {
		if errdefs.IsNotFound(err) {
			err = fmt.Errorf("%w (it is not in containerd's content store: pull the image again)", err)
		}
		return nil, err
	}
	// Before anything is moved.
	if err := p.absent(ctx, t.missing); err != nil {
		return nil, err
	}
	r := &Report{Blobs: make([]Blob, len(t.blobs))}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(p.cfg.Concurrency)
	for i, b := range t.blobs {
		g.Go(func() (err error) {
			r.Blobs[i], err = p.blob(gctx, b)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, doc := range t.documents {
		to := p.repo
		if i == len(t.documents)-1 {
			to, r.Target = p.tag, doc.Desc
		}
		if err := p.cfg.Registry.Push(ctx, to, transfer.Plain(doc.Desc), bytes.NewReader(doc.Text)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// blob makes b one of the destination.
func (p *push) blob(ctx context.Context, b item) (Blob, error) {
	bar := p.cfg.Bars.Add(transfer.Short(b.Digest))
	done, err := p.place(ctx, b, bar)
	if err != nil {
		return done, fmt.Errorf("%s %s (%s): %w", kind(b), b.Digest, terminal.Bytes(b.Size), err)
	}
	bar.Done(string(done.Stored))
	return done, nil
}

func kind(b item) string {
	if b.config {
		return "config"
	}
	return "layer"
}

// place finds the cheapest way.
func (p *push) place(ctx context.Context, b item, bar *terminal.Bar) (Blob, error) {
	done := Blob{Descriptor: transfer.Plain(b.Descriptor), Stored: transfer.Present}
	there, err := p.cfg.Registry.Exists(ctx, p.repo, b.Descriptor)
	if err != nil || there {
		return done, err
	}
	// Where a blob itself was pulled from is surer than where its manifest was.
	local := true
	sources, err := p.labelled(ctx, b.Digest)
	if errdefs.IsNotFound(err) {
		local, sources = false, b.sources
	} else if err != nil {
		return done, err
	}
	sources = p.ordered(sources)
	for _, from := range sources {
		if !p.mountable(from) {
			continue
		}
		mounted, err := p.cfg.Registry.Mount(ctx, p.repo, b.Descriptor, from)
		switch {
		case mounted:
			done.Stored, done.From = transfer.Mounted, from
			return done, nil
		case ctx.Err() != nil:
			return done, err
		case err != nil: // mounting saves a transfer, and that is all
			p.note("%s is not mounted from %s: %v", b.Digest, from, err)
		}
	}
	if local {
		done.Stored = transfer.Uploaded
		return done, p.upload(ctx, b.Descriptor, bar)
	}
	done.Stored = transfer.Copied
	done.From, err = p.copy(ctx, b.Descriptor, sources, bar)
	return done, err
}

// mountable reports whether a repository is another one of the same registry.
func (p *push) mountable(from string) bool {
	return from != p.repo && strings.HasPrefix(from, p.host+"/")
}

// ordered returns repositories without doubles, those of the destination's
// registry first and then as they sort.
func (p *push) ordered(repos []string) []string {
	all := slices.Clone(repos)
	slices.SortFunc(all, func(a, b string) int {
		if x, y := p.mountable(a), p.mountable(b); x != y {
			if x {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return slices.Compact(all)
}

// upload sends a blob of the content store.
func (p *push) upload(ctx context.Context, desc ocispec.Descriptor, bar *terminal.Bar) (err error) {
	r, err := p.cfg.Content.ReaderAt(ctx, desc)
	if err != nil {
		return fmt.Errorf("opening it in the content store: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if r.Size() != desc.Size {
		return fmt.Errorf("the content store has %d bytes of it, its descriptor says %d", r.Size(), desc.Size)
	}
	bar.Phase("uploading", desc.Size)
	return p.cfg.Registry.Push(ctx, p.repo, transfer.Plain(desc), &shown{io.NewSectionReader(r, 0, desc.Size), bar})
}

// shown tells a bar what is read.
type shown struct {
	*io.SectionReader
	bar *terminal.Bar
}

// ReadAt implements io.ReaderAt. What is sent a second time shows as such.
func (s *shown) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.SectionReader.ReadAt(p, off)
	s.bar.Set(off + int64(n))
	return n, err
}

// copy streams a blob from the first of the repositories that serves it, and
// returns which that is.
func (p *push) copy(ctx context.Context, desc ocispec.Descriptor, sources []string, bar *terminal.Bar) (string, error) {
	if len(sources) == 0 {
		return "", fmt.Errorf("not in containerd's content store, and nobody noted where it was pulled from: pull the image again, with --download-blobs to have its layers here: %w", errdefs.ErrNotFound)
	}
	var failed []error
	for _, from := range sources {
		bar.Phase("copying", desc.Size)
		served, err := p.stream(ctx, desc, from, bar)
		if err == nil {
			return from, nil
		}
		if served || ctx.Err() != nil { // the destination's fault, or nobody's
			return from, fmt.Errorf("copying from %s: %w", from, err)
		}
		failed = append(failed, fmt.Errorf("copying from %s: %w", from, err))
	}
	return "", fmt.Errorf("not in containerd's content store, and not to be had from where it was pulled: %w (credentials for that registry are taken from docker's config.json)", errors.Join(failed...))
}

// stream sends what it reads of a repository. served says that reading was no
// problem.
func (p *push) stream(ctx context.Context, desc ocispec.Descriptor, from string, bar *terminal.Bar) (served bool, err error) {
	b, err := p.cfg.Sources.Open(from, desc)
	if err != nil {
		return false, err
	}
	s := newStream(ctx, b, bar)
	err = p.cfg.Registry.Push(ctx, p.repo, transfer.Plain(desc), io.NewSectionReader(s, 0, desc.Size))
	s.close()
	if lost := s.failure(); lost != nil {
		return false, lost
	}
	return true, err
}

package chain

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// manifest returns the image manifest whose referrers are to be asked for a
// table of the blob desc, "" if none are.
func (c *Chain) manifest(host string, desc ocispec.Descriptor) digest.Digest {
	d := digest.Digest(desc.Annotations[labels.ManifestDigest])
	if !c.cfg.VerifyReferrers || c.policy(host) == VerifyOff || d.Validate() != nil {
		return ""
	}
	return d
}

// referred is a blob whose chunk table, if there is one, is listed by a
// referrer of its image's manifest. It is looked for by the first read, so that
// opening the blob asks nobody.
type referred struct {
	c         *Chain
	origin    blob.Blob
	ref, host string
	manifest  digest.Digest
	found     atomic.Pointer[readable]
}

// readable is a blob as it is read with what referrers say.
type readable struct {
	blob.Blob
	stage *blob.Stage // nil without a table
}

func newReferred(c *Chain, origin blob.Blob, ref, host string, manifest digest.Digest) *referred {
	return &referred{c: c, origin: origin, ref: ref, host: host, manifest: manifest}
}

// Size implements blob.ReaderAt.
func (r *referred) Size() int64 { return r.origin.Size() }

// Descriptor implements blob.Blob.
func (r *referred) Descriptor() ocispec.Descriptor { return r.origin.Descriptor() }

// ReadAt implements blob.ReaderAt.
func (r *referred) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	b, err := r.load(ctx)
	if err != nil {
		return 0, err
	}
	return b.ReadAt(ctx, p, off)
}

// load returns the blob as it is read with what referrers say. That there is no
// table is only believed if the registry says so: who can keep an answer back
// must not turn verification off.
func (r *referred) load(ctx context.Context) (*readable, error) {
	if b := r.found.Load(); b != nil {
		return b, nil
	}
	desc := r.Descriptor()
	tables, err := r.c.tables(ctx, r.ref, r.manifest)
	if err != nil {
		return nil, fmt.Errorf("looking for the chunk table of layer %s: %w", desc.Digest, err)
	}
	b, err := r.build(tables[desc.Digest])
	if err != nil {
		return nil, err
	}
	if !r.found.CompareAndSwap(nil, b) {
		b = r.found.Load() // somebody else was faster: fetches in flight are shared
	}
	return b, nil
}

func (r *referred) build(t table) (*readable, error) {
	desc := r.Descriptor()
	if t.desc.Digest == "" {
		if err := r.c.admit(r.host, desc); err != nil {
			return nil, blob.Permanent(err)
		}
		r.c.mu.Lock()
		defer r.c.mu.Unlock()
		return &readable{Blob: r.c.plain(r.origin, r.host)}, nil
	}
	content, err := r.c.registry.Open(r.ref, t.desc)
	if err != nil {
		return nil, err
	}
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	ref := chunks.Ref{Root: t.root, Size: t.desc.Size}
	b, stage := r.c.verified(r.origin, r.host, ref, r.c.plain(content, r.host))
	return &readable{b, stage}, nil
}

// stage returns where bytes of the blob can be staged, nil if it has no table.
func (r *referred) stage(ctx context.Context) (*blob.Stage, error) {
	b, err := r.load(ctx)
	if err != nil {
		return nil, err
	}
	return b.stage, nil
}

// now returns the blob if it was read before, else one that has nothing.
func (r *referred) now() blob.Blob {
	if b := r.found.Load(); b != nil {
		return b.Blob
	}
	return r.origin
}

// Present implements blob.Presence.
func (r *referred) Present(off, n int64) bool { return blob.Present(r.now(), off, n) }

// Discard implements blob.Discarder.
func (r *referred) Discard(off, n int64) { blob.Discard(r.now(), off, n) }

// Reject implements blob.Rejecter.
func (r *referred) Reject(origin string) { blob.Reject(r.now(), origin) }

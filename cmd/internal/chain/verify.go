package chain

import (
	"fmt"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// Policy says which blobs of a registry host are read.
type Policy string

const (
	// VerifyWhenPossible checks every range of blobs that have a chunk table,
	// and reads the others unchecked. It is what the zero value means.
	VerifyWhenPossible Policy = "when-possible"
	// VerifyRequired refuses blobs that have no chunk table.
	VerifyRequired Policy = "required"
	// VerifyOff checks nothing.
	VerifyOff Policy = "off"
)

// policy returns what holds for a host.
func (c *Chain) policy(host string) Policy {
	if p, ok := c.cfg.VerifyHosts[host]; ok {
		return p
	}
	return c.cfg.Verify
}

// table returns the chunk table within the blob that desc is to be verified
// with, the zero value for none.
func (c *Chain) table(host string, desc ocispec.Descriptor) (chunks.Ref, error) {
	if c.policy(host) == VerifyOff {
		return chunks.Ref{}, nil
	}
	ref, err := labels.Chunks(desc.Annotations)
	if err == nil && !ref.IsZero() {
		err = ref.ValidateIn(desc.Size)
	}
	if err != nil {
		return chunks.Ref{}, fmt.Errorf("layer %s: %w; an image whose annotations are broken can be read with verify = %q for %s",
			desc.Digest, err, VerifyOff, host)
	}
	return ref, nil
}

// admit returns an error if policy refuses blobs without a chunk table.
func (c *Chain) admit(host string, desc ocispec.Descriptor) error {
	if c.policy(host) != VerifyRequired {
		return nil
	}
	how := "give the image one with reprise convert, or with reprise attach-chunks and verify_referrers = true,"
	if c.cfg.VerifyReferrers {
		how = "give the image one with reprise convert or reprise attach-chunks,"
	}
	return fmt.Errorf("layer %s has no chunk table, which verify = %q asks for at %s: %s or set verify = %q for this host: %w",
		desc.Digest, VerifyRequired, host, how, VerifyWhenPossible, errdefs.ErrFailedPrecondition)
}

// store returns b cached: by host, and by the table if there is one.
func (c *Chain) store(b blob.Blob, host string, ref chunks.Ref) blob.Blob {
	origin := host
	if !ref.IsZero() {
		origin = fmt.Sprintf("%s, verified with %s, %d bytes at %d of %d", host, ref.Root, ref.Size, ref.Offset, b.Size())
	}
	return c.cfg.Cache.BlobFrom(origin, b)
}

// top is a blob as its readers see it, for a decorator far below. The blob is
// set before anything is read.
type top struct {
	blob.Blob
	size int64
}

// Size implements blob.ReaderAt.
func (t *top) Size() int64 { return t.size }

// Present implements blob.Presence.
func (t *top) Present(off, n int64) bool { return blob.Present(t.Blob, off, n) }

// Discard implements blob.Discarder.
func (t *top) Discard(off, n int64) { blob.Discard(t.Blob, off, n) }

// Reject implements blob.Rejecter.
func (t *top) Reject(origin string) { blob.Reject(t.Blob, origin) }

package chain

import (
	"context"
	"errors"
	"fmt"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/tracelayer"
)

// ErrPlanDigest says that a plan is not what the image says it is.
var ErrPlanDigest = errors.New("plan does not have its digest")

// OpenTrace returns the blob of a trace layer in the repository of ref. It is
// cached, but not held to the policy on chunk tables: a trace layer has none, and
// nothing of it becomes a part of the file system. Its plan has a digest, and its
// data are used where a layer's own table verifies them.
func (c *Chain) OpenTrace(ref string, desc ocispec.Descriptor) (blob.Blob, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("parsing reference %q: %w", ref, err)
	}
	origin, err := c.registry.Open(ref, desc)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.plain(origin, reference.Domain(named)), nil
}

// ReadPlan returns the encoded plan that lies where plan says in trace, a blob that
// OpenTrace opened. The error wraps ErrPlanDigest if it is not the one that plan
// says, if that says one.
func ReadPlan(ctx context.Context, trace blob.Blob, plan tracelayer.Member) ([]byte, error) {
	if plan.Size > tracelayer.MaxPlan || plan.Offset < 0 || plan.Size < 0 || plan.Offset > trace.Size()-plan.Size {
		return nil, fmt.Errorf("reading plan: %d bytes at %d of a trace layer of %d", plan.Size, plan.Offset, trace.Size())
	}
	p := make([]byte, plan.Size)
	for last := false; ; last = true {
		if err := blob.ReadFull(ctx, trace, p, plan.Offset); err != nil {
			return nil, fmt.Errorf("reading plan: %w", err)
		}
		if plan.Digest == "" || digest.FromBytes(p) == plan.Digest {
			return p, nil
		}
		// Of the cache, damage may be the reason.
		blob.Discard(trace, plan.Offset, plan.Size)
		if last {
			return nil, fmt.Errorf("reading plan: %w (%s)", ErrPlanDigest, plan.Digest)
		}
	}
}

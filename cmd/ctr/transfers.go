package main

import (
	"context"
	"sync"

	"github.com/containerd/containerd/v2/cmd/ctr/commands/content"
	store "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// transfers notes which blobs a pull brings over the network. It is the first
// handler of the pull, called just before each blob would be fetched.
type transfers struct {
	content store.Store
	jobs    *content.Jobs // what containerd's progress display follows

	mu    sync.Mutex
	moved map[digest.Digest]int64 // bytes
}

func newTransfers(cs store.Store, ref string) *transfers {
	return &transfers{content: cs, jobs: content.NewJobs(ref), moved: map[digest.Digest]int64{}}
}

// Handle implements images.Handler; it has no children to add.
func (t *transfers) Handle(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	t.jobs.Add(desc)
	if _, err := t.content.Info(ctx, desc.Digest); errdefs.IsNotFound(err) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.moved[desc.Digest] = desc.Size
	}
	return nil, nil
}

// bytes returns the size of blob d if this pull transferred it.
func (t *transfers) bytes(d digest.Digest) (int64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.moved[d]
	return n, ok
}

// total returns how many blobs were transferred and their bytes.
func (t *transfers) total() (blobs int, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.moved {
		bytes += n
	}
	return len(t.moved), bytes
}

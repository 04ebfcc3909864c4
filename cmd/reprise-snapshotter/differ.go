package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/diffservice"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/convert"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot"
	"github.com/reprise-containers/reprise/snapshot/differ"
)

// child does the work of the processes that the daemon starts of itself.
func child(args []string) (code int, ok bool) {
	if code, ok := fusedev.Child(args); ok {
		return code, ok
	}
	return differ.Child(args)
}

// keepLayers is for how long a layer is kept that a client asked for and does not
// refer to.
const keepLayers = time.Hour

// registerDiffer adds the differ for sn to the services that containerd finds.
func (a *api) registerDiffer(s *grpc.Server, sn *snapshot.Snapshotter) *caller {
	c := &caller{address: a.cfg.Diff.Containerd}
	d := plainDiffer{differ.New(sn, differ.Config{
		Containerd:  c,
		Layers:      a.layers,
		Compression: zfile.Options{Algorithm: convert.DefaultAlgorithm, BlockSize: convert.DefaultBlockSize},
		Temp:        filepath.Join(a.cfg.Root, "new"),
		Command:     []string{"/proc/self/exe"},
	})}
	diffapi.RegisterDiffServer(s, diffservice.FromApplierAndComparer(d, d))
	return c
}

// openLayers returns how a differ opens the layers of images.
func openLayers(blobs *chain.Chain) differ.OpenLayers {
	return func(img backstore.Image) ([]blob.ReaderAt, func(), error) { return chain.OpenLayers(blobs.Open, img) }
}

// caller is the containerd that calls.
type caller struct {
	address string

	mu     sync.Mutex
	client *containerd.Client
}

// connect returns the connection to containerd, which is made by the first call.
func (c *caller) connect() (*containerd.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		return c.client, nil
	}
	client, err := containerd.New(c.address)
	if err != nil {
		return nil, fmt.Errorf("connecting to containerd (diff.containerd_address): %w", err)
	}
	c.client = client
	return client, nil
}

// Close closes the connection.
func (c *caller) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		return nil
	}
	return c.client.Close()
}

// Content implements differ.Containerd.
func (c *caller) Content(ctx context.Context) (context.Context, content.Store, error) {
	namespace, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return ctx, nil, err
	}
	client, err := c.connect()
	if err != nil {
		return ctx, nil, err
	}
	// From what came with the call to what goes with the next one.
	return namespaces.WithNamespace(ctx, namespace), client.ContentStore(), nil
}

// Keep implements differ.Containerd. The client's own lease does not come along.
func (c *caller) Keep(ctx context.Context) (context.Context, error) {
	client, err := c.connect()
	if err != nil {
		return ctx, err
	}
	l, err := client.LeasesService().Create(ctx, leases.WithRandomID(), leases.WithExpiration(keepLayers))
	if err != nil {
		return ctx, fmt.Errorf("making a lease for a layer: %w", err)
	}
	return leases.WithLease(ctx, l.ID), nil
}

// plainDiffer is a differ with plain errors, see plainErrors.
type plainDiffer struct{ *differ.Differ }

func (p plainDiffer) Compare(ctx context.Context, lower, upper []mount.Mount, opts ...diff.Opt) (ocispec.Descriptor, error) {
	desc, err := p.Differ.Compare(ctx, lower, upper, opts...)
	return desc, plain(err)
}

func (p plainDiffer) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	applied, err := p.Differ.Apply(ctx, desc, mounts, opts...)
	return applied, plain(err)
}

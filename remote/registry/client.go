// Package registry is a client of OCI distribution registries made for reading
// ranges of blobs over a long time: mirrors with fall-over, credentials that
// are renewed, redirects that expire, and answers that are checked byte for
// byte.
//
// Host configurations are containerd's, credentials those of docker. A blob read
// is one attempt at every host; repeating it is for blob.Retry.
package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
)

// Client reads from and writes to registries. Its methods may be called in
// parallel.
type Client struct {
	cfg     Config
	hosts   *hosts
	auth    *authorizer
	targets *targets
	health  *health

	referring sync.Mutex // held to change an index of referrers
}

// New returns a client. It touches neither files nor the network.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	return &Client{
		cfg:     cfg,
		hosts:   &hosts{cfg: cfg, sets: make(map[string]*hostSet)},
		auth:    newAuthorizer(cfg.credential),
		targets: newTargets(),
		health:  newHealth(),
	}, nil
}

// Close closes idle connections. The client can be used on.
func (c *Client) Close() error {
	c.hosts.close()
	return nil
}

// Open returns the blob that desc describes, in the repository of ref (whose
// tag or digest does not matter). It does not use the network: the first read
// does.
func (c *Client) Open(ref string, desc ocispec.Descriptor) (blob.Blob, error) {
	r, err := parseReference(ref)
	if err != nil {
		return nil, err
	}
	if err := checkDescriptor(desc); err != nil {
		return nil, fmt.Errorf("opening a blob of %s: %w", r.name(), err)
	}
	return &remoteBlob{
		c: c, ref: r, desc: desc, rejected: newRejections(),
		name:  r.name() + "@" + desc.Digest.String(),
		path:  "blobs/" + desc.Digest.String(),
		scope: r.scope("pull"),
	}, nil
}

func checkDescriptor(desc ocispec.Descriptor) error {
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", desc.Digest, err)
	}
	if desc.Size < 0 {
		return fmt.Errorf("size %d of %s is negative", desc.Size, desc.Digest)
	}
	return nil
}

// eachHost calls try for the hosts of ref that are able to caps, until one call
// succeeds. Hosts that failed recently come last.
func (c *Client) eachHost(ctx context.Context, ref reference, caps docker.HostCapabilities, try func(*endpoint) error) error {
	return c.eachOf(ctx, ref, caps, c.health.order, try)
}

// eachOf is eachHost with the hosts in another order.
func (c *Client) eachOf(ctx context.Context, ref reference, caps docker.HostCapabilities,
	order func([]*endpoint) []*endpoint, try func(*endpoint) error,
) error {
	all, err := c.hosts.endpoints(ctx, ref.ns)
	if err != nil {
		return err
	}
	var failed []error
	for _, e := range order(all) {
		if !e.caps.Has(caps) {
			continue
		}
		err := try(e)
		if err == nil {
			c.health.good(e)
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		if re, ok := errors.AsType[*Error](err); ok && re.hostFault() {
			c.health.bad(e)
		}
		if e.ns == "" { // the registry itself knows best
			failed = append([]error{err}, failed...)
		} else {
			failed = append(failed, err)
		}
	}
	switch len(failed) {
	case 0:
		return fmt.Errorf("no host of %s is configured for this: %w", ref.ns, errdefs.ErrUnavailable)
	case 1:
		return failed[0]
	}
	return &hostsError{failed}
}

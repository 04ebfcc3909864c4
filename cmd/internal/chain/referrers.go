package chain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

const (
	// maxArtifacts is how many artifacts of one image are looked at.
	maxArtifacts = 8
	// listFor is how long what referrers said is believed, so that the layers
	// of an image ask once.
	listFor = 10 * time.Minute
)

// table is a chunk table that is a blob of its own; the zero value is none.
type table struct {
	desc ocispec.Descriptor
	root digest.Digest
}

// subject is an image manifest in a repository.
type subject struct {
	repository string
	manifest   digest.Digest
}

// list is what the referrers of a manifest have.
type list struct {
	asking chan struct{} // one token; whoever has it may touch the rest
	tables map[digest.Digest]table
	until  time.Time // tables are believed
}

// tables returns the chunk tables that referrers of a manifest have, by the
// digest of the layer.
func (c *Chain) tables(ctx context.Context, ref string, manifest digest.Digest) (map[digest.Digest]table, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("parsing reference %q: %w", ref, err)
	}
	l := c.list(subject{named.Name(), manifest})
	select {
	case l.asking <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-l.asking }()
	if time.Now().Before(l.until) {
		return l.tables, nil
	}
	var found map[digest.Digest]table
	err = c.cfg.Retry.Do(ctx, func(ctx context.Context) (err error) {
		found, err = c.ask(ctx, ref, manifest)
		return err
	})
	if err != nil {
		return nil, err
	}
	l.tables, l.until = found, time.Now().Add(listFor)
	return found, nil
}

// list returns the list of s. Those of images that nobody asks about any more
// are few enough to stay.
func (c *Chain) list(s subject) *list {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lists[s]
	if l == nil {
		l = &list{asking: make(chan struct{}, 1)}
		c.lists[s] = l
	}
	return l
}

// ask asks the registry. Of several tables for one layer the first is taken.
func (c *Chain) ask(ctx context.Context, ref string, manifest digest.Digest) (map[digest.Digest]table, error) {
	found := make(map[digest.Digest]table)
	artifacts, err := c.registry.Referrers(ctx, ref, manifest, labels.TablesArtifact)
	if err != nil {
		return nil, err
	}
	for _, desc := range artifacts[:min(len(artifacts), maxArtifacts)] {
		text, err := c.document(ctx, ref, desc)
		if err != nil {
			return nil, fmt.Errorf("reading artifact %s: %w", desc.Digest, err)
		}
		if err := parseArtifact(text, manifest, found); err != nil {
			return nil, blob.Permanent(fmt.Errorf("artifact %s with chunk tables: %w", desc.Digest, err))
		}
	}
	return found, nil
}

// document returns a manifest as a whole.
func (c *Chain) document(ctx context.Context, ref string, desc ocispec.Descriptor) ([]byte, error) {
	if desc.Size > registry.MaxManifestSize {
		return nil, blob.Permanent(fmt.Errorf("%d bytes are too many for a manifest", desc.Size))
	}
	r, err := c.registry.Fetch(ctx, ref, desc)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// parseArtifact adds the tables that an artifact lists to found, by layer.
func parseArtifact(text []byte, manifest digest.Digest, found map[digest.Digest]table) error {
	var m ocispec.Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return err
	}
	if m.Subject == nil || m.Subject.Digest != manifest {
		return fmt.Errorf("it does not refer to manifest %s", manifest)
	}
	for i, d := range m.Layers {
		if d.MediaType != labels.TablesArtifact {
			continue
		}
		layer, t, err := parseTable(d)
		if err != nil {
			return fmt.Errorf("table %d: %w", i, err)
		}
		if _, ok := found[layer]; !ok {
			found[layer] = t
		}
	}
	return nil
}

func parseTable(d ocispec.Descriptor) (digest.Digest, table, error) {
	t, err := labels.Table(d.Annotations)
	if d.Size <= 0 {
		err = errors.Join(err, fmt.Errorf("its size is %d", d.Size))
	}
	err = errors.Join(err, d.Digest.Validate())
	return t.Blob, table{desc: ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, root: t.Root}, err
}

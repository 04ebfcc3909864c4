package push

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/cmd/internal/transfer"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
)

// DefaultConcurrency is how many blobs are on their way at a time.
const DefaultConcurrency = 3

// Sources opens blobs of any repository for reading.
type Sources interface {
	Open(ref string, desc ocispec.Descriptor) (blob.Blob, error)
}

// Config says what is pushed where.
type Config struct {
	// Content is containerd's store. The namespace is that of the context.
	Content content.Store
	// Image is what is pushed: a manifest or an index.
	Image images.Image
	// Ref is where to, with a tag.
	Ref string
	// Registry writes to it.
	Registry *registry.Client
	// Sources reads what is not in Content.
	Sources Sources
	// Platform picks one manifest of an index, such as "linux/arm64", which is
	// then pushed alone. Empty: what Image is.
	Platform string
	// Concurrency bounds the blobs on their way. Default DefaultConcurrency.
	Concurrency int
	// NonDistributable pushes layers that must not be distributed, too.
	NonDistributable bool
	// Bars shows what goes on; nil: nothing.
	Bars *terminal.Bars
	// Note is told what the user should know though the push goes on, one
	// thing at a time.
	Note func(string)
}

// Validate reports what makes no sense.
func (c Config) Validate() error {
	if c.Content == nil || c.Registry == nil || c.Sources == nil {
		return errors.New("pushing needs a content store, a registry and a source of layers")
	}
	named, err := reference.ParseNormalizedNamed(c.Ref)
	if err != nil {
		return fmt.Errorf("parsing reference %q: %w", c.Ref, err)
	}
	if _, ok := named.(reference.Digested); ok {
		return fmt.Errorf("%s: an image is pushed to a tag, not to a digest", c.Ref)
	}
	if c.Platform != "" {
		if _, err := platforms.Parse(c.Platform); err != nil {
			return fmt.Errorf("platform %q: %w", c.Platform, err)
		}
	}
	if c.Concurrency < 0 {
		return fmt.Errorf("%d blobs at a time", c.Concurrency)
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.Concurrency == 0 {
		c.Concurrency = DefaultConcurrency
	}
	if c.Note == nil {
		c.Note = func(string) {}
	}
	return c
}

// Report is what a push did.
type Report struct {
	// Target is what the tag stands for now.
	Target ocispec.Descriptor
	// Blobs are configs and layers.
	Blobs []Blob
}

// Blob is one of them.
type Blob struct {
	ocispec.Descriptor
	Stored transfer.Stored
	// From is the repository it was mounted or copied from.
	From string
}

// Run pushes. With an error the tag stands for what it stood for before.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	p, err := newPush(cfg)
	if err != nil {
		return nil, err
	}
	r, err := p.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("pushing %s to %s: %w", cfg.Image.Name, cfg.Ref, err)
	}
	return r, nil
}

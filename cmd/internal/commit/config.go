package commit

import (
	"errors"
	"fmt"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Config says what is made of which container.
type Config struct {
	// Client is of containerd. The namespace is that of the context.
	Client *containerd.Client
	// Container is its id, Name the name of the image. An image that has it
	// already loses it.
	Container, Name string
	// Author and Message are for the history; an empty Author is that of the
	// container's image.
	Author, Message string
	// Changes change the config, in this order.
	Changes []Change
	// Running leaves the container running while its files are read.
	Running bool
	// Compression is asked for if the layer is an archive: "gzip" or "zstd".
	// Empty is "gzip".
	Compression string
	// Note is told what somebody should know; nil is nobody.
	Note func(string)
}

// mediaTypes are those of archives, by compression.
var mediaTypes = map[string]string{
	"":     ocispec.MediaTypeImageLayerGzip,
	"gzip": ocispec.MediaTypeImageLayerGzip,
	"zstd": ocispec.MediaTypeImageLayerZstd,
}

// Validate reports what makes no sense.
func (c Config) Validate() error {
	switch {
	case c.Client == nil:
		return errors.New("committing needs a containerd")
	case c.Container == "" || c.Name == "":
		return errors.New("committing needs a container and a name for the image")
	case mediaTypes[c.Compression] == "":
		return fmt.Errorf("compression %q is neither gzip nor zstd", c.Compression)
	}
	if _, err := reference.ParseNormalizedNamed(c.Name); err != nil {
		return fmt.Errorf("name %q of the image: %w", c.Name, err)
	}
	return nil
}

// Report is what was made.
type Report struct {
	Name   string
	Target digest.Digest
	// Layer is the new layer, Overlaybd says that it is one of overlaybd.
	Layer     ocispec.Descriptor
	Overlaybd bool
	// Dropped are trace layers of the container's image.
	Dropped []digest.Digest
}

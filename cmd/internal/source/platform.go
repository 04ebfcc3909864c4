package source

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CheckPlatform returns an error if the image manifest that desc describes is
// known to be for another platform than want, such as "linux/arm64". Where it
// was chosen from an index its descriptor says for which it is; else its config
// does. Empty, want is any.
func (c *Content) CheckPlatform(ctx context.Context, desc, config ocispec.Descriptor, want string) error {
	if want == "" {
		return nil
	}
	match, err := platform(want)
	if err != nil {
		return err
	}
	is := desc.Platform
	if is == nil && images.IsConfigType(config.MediaType) {
		text, err := c.Read(ctx, config)
		if err != nil {
			return fmt.Errorf("reading the config: %w", err)
		}
		is = new(ocispec.Platform)
		if err := json.Unmarshal(text, is); err != nil {
			return fmt.Errorf("parsing the config: %w", err)
		}
	}
	if is == nil || is.OS == "" || is.Architecture == "" || match.Match(*is) {
		return nil
	}
	return fmt.Errorf("manifest %s is for %s, not for %s", desc.Digest, platforms.Format(*is), want)
}

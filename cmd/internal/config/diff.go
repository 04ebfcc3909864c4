package config

import (
	"path/filepath"

	"github.com/reprise-containers/reprise/cmd/internal/verdict"
)

// Diff says how images are made of containers.
type Diff struct {
	Containerd string `toml:"containerd_address" comment:"Socket of the containerd whose content store takes the layers made of containers on overlaybd images, if it is told to ask for them (proxy_plugins of type \"diff\", see docs/operations.md); empty: none are made."`
}

func (d Diff) validate(v *verdict.Verdict) {
	v.Check(d.Containerd == "" || filepath.IsAbs(d.Containerd), "diff.containerd_address = %q: must be an absolute path", d.Containerd)
}

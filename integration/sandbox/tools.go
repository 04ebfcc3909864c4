package sandbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/reprise-containers/reprise/cache/cachetest/testbed"
)

// Tools says where the programs are that a sandbox runs.
type Tools struct {
	// Module is the root folder of the source tree.
	Module string
	// Bin holds containerd, ctr and its shim, built from pinned sources.
	Bin string
	// Debian is the root of the unpacked Debian packages.
	Debian string
	// Cache is where test images are kept between runs.
	Cache string
}

// FindTools returns the tools that integration/tools/install.sh has put into
// its cache. It installs nothing.
func FindTools(ctx context.Context) (Tools, error) {
	module, err := testbed.Module()
	if err != nil {
		return Tools{}, err
	}
	dir, err := testbed.Tools(ctx)
	if err != nil {
		return Tools{}, err
	}
	t := Tools{
		Module: module,
		Bin:    filepath.Join(dir, "bin"),
		Debian: filepath.Join(dir, "debian"),
		Cache:  filepath.Dir(dir),
	}
	for _, p := range []string{t.Bin + "/containerd", t.Debian + "/usr/sbin/runc", t.Debian + "/usr/bin/docker-registry"} {
		if _, err := os.Stat(p); err != nil {
			return Tools{}, fmt.Errorf("finding tools: %w (run `make tools`)", err)
		}
	}
	return t, nil
}

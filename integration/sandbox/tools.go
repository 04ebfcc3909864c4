package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	module, err := moduleRoot()
	if err != nil {
		return Tools{}, err
	}
	out, err := exec.CommandContext(ctx, filepath.Join(module, "integration/tools/install.sh"), "--dir").Output()
	if err != nil {
		return Tools{}, fmt.Errorf("finding tools: %w", err)
	}
	dir := strings.TrimSpace(string(out))
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

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	if err == nil {
		err = errors.New("no go.mod above the working directory")
	}
	return "", fmt.Errorf("finding the source tree: %w", err)
}

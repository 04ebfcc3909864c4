// Package redistest starts real Redis servers and clusters for tests and benchmarks.
package redistest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/reprise-containers/reprise/cache/cachetest/testbed"
)

// Program is a Redis server that can be started.
type Program struct {
	Path string
	libs string // folders of its libraries, if they are not installed
}

// Find returns the server that is installed, or the one that `make tools` unpacks. It
// installs nothing.
func Find() (Program, error) {
	if path, err := exec.LookPath("redis-server"); err == nil {
		return Program{Path: path}, nil
	}
	tools, err := testbed.Tools(context.Background())
	if err != nil {
		return Program{}, err
	}
	debian := filepath.Join(tools, "debian")
	p := Program{Path: filepath.Join(debian, "usr/bin/redis-server")}
	if _, err := os.Stat(p.Path); err != nil {
		return Program{}, fmt.Errorf("finding redis-server: %w (run `make tools`)", err)
	}
	// One folder for each architecture, of which there is one.
	libs, err := filepath.Glob(filepath.Join(debian, "usr/lib/*-linux-gnu*"))
	p.libs = strings.Join(libs, ":")
	return p, err
}

// Environment is that of the program's process, and of those of its companions in the same
// folder, such as redis-cli.
func (p Program) Environment() []string {
	if p.libs == "" {
		return os.Environ()
	}
	return append(os.Environ(), "LD_LIBRARY_PATH="+p.libs)
}

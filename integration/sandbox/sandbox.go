// Package sandbox runs the real programs of an end-to-end test side by side
// with whatever else the machine runs: containerd, a registry and the
// snapshotter, each with private folders, sockets and ports below one
// temporary folder. Everything a sandbox starts runs in a control group of
// its own, so that it can be found, killed and checked for leaks by identity,
// never by name.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Sandbox is a set of processes and the folder they live in. Methods may be
// called concurrently.
type Sandbox struct {
	// Root is the temporary folder everything is below.
	Root string
	// Namespace is the containerd namespace and the name of container
	// control groups; no other sandbox has it.
	Namespace string
	// Tools are the programs that run in the sandbox.
	Tools Tools
	// Differ has containerd ask the snapshotter for the difference of snapshots.
	// It counts when containerd is started for the first time.
	Differ bool

	group cgroup

	mu    sync.Mutex
	procs []*Process
}

// New makes an empty sandbox below the folder for temporary files. It needs
// root.
func New(tools Tools) (*Sandbox, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("creating a sandbox: mounts and containers need root")
	}
	// Unix socket paths are limited to 107 bytes, so the name is short.
	root, err := os.MkdirTemp("", "reprise-")
	if err != nil {
		return nil, fmt.Errorf("creating a sandbox: %w", err)
	}
	s := &Sandbox{Root: root, Namespace: filepath.Base(root), Tools: tools}
	if s.group, err = newCgroup(s.Namespace + ".host"); err != nil {
		os.RemoveAll(root)
		return nil, fmt.Errorf("creating a sandbox: %w", err)
	}
	return s, nil
}

// Path returns the name of a file below the sandbox's folder.
func (s *Sandbox) Path(elem ...string) string {
	return filepath.Join(append([]string{s.Root}, elem...)...)
}

// Logs returns the ends of the logs of all processes, for a failed test.
func (s *Sandbox) Logs() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	seen := map[string]bool{}
	for _, p := range s.procs {
		if !seen[p.log] {
			size := int64(64 << 10)
			if strings.HasPrefix(p.Name, "registry") {
				size = 2 << 10 // it reports each blob that a push finds missing
			}
			fmt.Fprintf(&b, "--- %s\n%s", p.log, tail(p.log, size))
		}
		seen[p.log] = true
	}
	return b.String()
}

// Crash kills every process of the sandbox, containers too, and unmounts all
// that is below its folder: what a reboot does to a node.
func (s *Sandbox) Crash(ctx context.Context) error {
	return errors.Join(s.kill(ctx), s.unmount())
}

// kill ends all processes of the sandbox and its containers, by the control
// groups they are in.
func (s *Sandbox) kill(ctx context.Context) error {
	if err := s.group.kill(ctx); err != nil {
		return err
	}
	s.removeShimSockets()
	return containerGroups(s.Namespace).kill(ctx)
}

// Close stops what runs, removes what the sandbox made and reports leaks: a
// mount or loop device that should have gone with the last container. It is
// called after the containers and images are removed (see Containerd.Empty);
// leaks are cleaned up after they have been noted.
func (s *Sandbox) Close(ctx context.Context) error {
	leaks := s.Leaks()
	s.mu.Lock()
	procs := s.procs
	s.mu.Unlock()
	for i := len(procs) - 1; i >= 0; i-- {
		procs[i].Stop(ctx)
	}
	errs := []error{s.Crash(ctx)}
	for _, l := range leaks {
		errs = append(errs, fmt.Errorf("leak: %s", l))
	}
	errs = append(errs, s.group.remove(ctx), removeContainerState(ctx, s.Namespace), os.RemoveAll(s.Root))
	return errors.Join(errs...)
}

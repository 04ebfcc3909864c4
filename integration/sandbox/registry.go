package sandbox

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/reprise-containers/reprise/cache/cachetest/testbed"
)

// Registry is a running distribution registry.
type Registry struct {
	// Address is host:port of its API, plain http.
	Address string

	sandbox *Sandbox
	name    string
	argv    []string
	proc    *Process
}

// RegistryConfig says how a registry is started.
type RegistryConfig struct {
	// Name tells the registries of a sandbox apart; equal names share storage.
	Name string
	// Host is the address it listens on; empty: 127.0.0.1.
	Host string
	// Netns is the network namespace it runs in; empty: the machine's.
	Netns string
}

const registryConfig = `version: 0.1
log:
  level: error
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: %s
  delete:
    enabled: true
http:
  addr: %s
  relativeurls: true
`

// StartRegistry starts a registry with storage in the sandbox.
func (s *Sandbox) StartRegistry(ctx context.Context, c RegistryConfig) (*Registry, error) {
	if c.Host == "" {
		c.Host = "127.0.0.1"
	}
	port, err := testbed.FreePort()
	if err != nil {
		return nil, err
	}
	r := &Registry{Address: net.JoinHostPort(c.Host, port), sandbox: s, name: c.Name}
	config := s.Path("registry-" + c.Name + ".yml")
	text := fmt.Sprintf(registryConfig, s.Path("registry", c.Name), r.Address)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	r.argv = []string{s.Tools.Debian + "/usr/bin/docker-registry", "serve", config}
	if c.Netns != "" {
		// Not ip netns exec: that clones the mount namespace and would pin
		// every mount of the snapshotter for as long as the registry runs.
		r.argv = append([]string{"nsenter", "--net=/run/netns/" + c.Netns}, r.argv...)
	}
	return r, r.Start(ctx)
}

// Start starts the registry again, at the same address, after Stop or
// Sandbox.Crash.
func (r *Registry) Start(ctx context.Context) (err error) {
	r.proc, err = r.sandbox.start("registry-"+r.name, []string{"OTEL_TRACES_EXPORTER=none"}, r.argv...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return r.proc.await(ctx, func(ctx context.Context) error { return testbed.Answers(ctx, "http://"+r.Address+"/v2/") })
}

// Stop ends the registry; its storage stays.
func (r *Registry) Stop(ctx context.Context) { r.proc.Stop(ctx) }

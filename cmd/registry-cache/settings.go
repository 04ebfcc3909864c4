package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/cacheconfig"
)

var errNoUpstream = errors.New("there is no registry to serve: give --upstream HOST, or --config with " +
	"server.defaultBackend, server.upstreamRules or server.registries")

func settings() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "configuration `FILE` (YAML)"},
		&cli.StringFlag{Name: "upstream", Aliases: []string{"u"},
			Usage: "default registry: [http://|https://]`HOST`[:PORT] (server.defaultBackend)"},
		&cli.StringFlag{Name: "data", Usage: "`DIR` for all that is kept (dataPath)"},
		&cli.StringFlag{Name: "listen", Usage: "`HOST:PORT` to serve at (server.address)"},
		&cli.StringFlag{Name: "metrics", Usage: "`HOST:PORT` of /metrics, /healthz and /readyz (metrics.address)"},
		&cli.StringSliceFlag{Name: "allow-address", Usage: "`NETWORK` that may be dialled although it is private (server.allowAddresses)"},
	}
}

// load returns the configuration that the command line asks for: that of a file, or
// the embedded one, and over it what flags say.
func load(c *cli.Command) (cacheconfig.Cache, error) {
	cfg, err := base(c.String("config"))
	if err != nil {
		return cfg, err
	}
	if v := c.String("upstream"); v != "" {
		if cfg.Server.DefaultBackend, err = parseUpstream(v); err != nil {
			return cfg, err
		}
		if cfg.Server.DefaultBackend.Host == hubHost { // which references call otherwise
			cfg.Server.Registries["docker.io"] = cacheconfig.Backend{}
		}
	}
	if v := c.String("data"); v != "" {
		if cfg.DataPath, err = filepath.Abs(v); err != nil {
			return cfg, fmt.Errorf("--data: %w", err)
		}
	}
	if v := c.String("listen"); v != "" {
		cfg.Server.Address = v
	}
	if c.IsSet("metrics") {
		cfg.Metrics.Address = c.String("metrics")
	}
	cfg.Server.AllowAddresses = append(cfg.Server.AllowAddresses, c.StringSlice("allow-address")...)
	return cfg, cfg.Validate()
}

// base returns the configuration of a file, or the embedded one: the defaults, in a
// folder of this user's and with nothing that others can reach.
func base(path string) (cacheconfig.Cache, error) {
	if path != "" {
		return cacheconfig.Load(path)
	}
	cfg := cacheconfig.Default()
	cfg.Metrics.Address, cfg.Metrics.Images = "127.0.0.1:3000", true
	cfg.DataPath = "/var/lib/registry-cache"
	if os.Geteuid() != 0 {
		dir, err := os.UserCacheDir()
		if err != nil {
			return cfg, fmt.Errorf("finding a folder for what is kept (--data names one): %w", err)
		}
		cfg.DataPath = filepath.Join(dir, "registry-cache")
	}
	return cfg, nil
}

// serves reports whether there is any upstream.
func serves(cfg cacheconfig.Cache) bool {
	s := cfg.Server
	return s.DefaultBackend.Host != "" || len(s.UpstreamRules) > 0 || len(s.Registries) > 0
}

// hubHost is the registry of Docker Hub.
const hubHost = "registry-1.docker.io"

// parseUpstream parses the value of --upstream. Registries on this machine speak
// HTTP if nothing else is said, others HTTPS.
func parseUpstream(text string) (cacheconfig.Backend, error) {
	scheme, host, ok := strings.Cut(text, "://")
	if !ok {
		scheme, host = "https", text
		if isLoopback(host) {
			scheme = "http"
		}
	}
	host = strings.TrimSuffix(host, "/")
	switch host {
	case "docker.io", "index.docker.io":
		host = hubHost
	case "":
		return cacheconfig.Backend{}, fmt.Errorf("--upstream %q: there is no host", text)
	}
	if strings.ContainsAny(host, "/?#@") {
		return cacheconfig.Backend{}, fmt.Errorf("--upstream %q: only a host, with a port, can be named", text)
	}
	return cacheconfig.Backend{Host: host, Scheme: scheme}, nil
}

func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || err == nil && a.IsLoopback()
}

package cacheconfig

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/cmd/internal/verdict"
)

// Validate reports every value that cannot work, each with its key. What rules and
// names of hosts must be is for those who use them to say.
func (c Cache) Validate() error {
	var v verdict.Verdict
	v.Check(filepath.IsAbs(c.DataPath), "dataPath = %q: must be an absolute path", c.DataPath)
	c.Server.validate(&v)
	v.OneOf("permission.policy", c.Permission.Policy, "fail-closed", "stale-if-error", "trusted")
	v.Check(c.Permission.Policy != "stale-if-error" || c.Permission.StaleFor > 0, "permission.staleFor: must be positive with policy stale-if-error")
	v.Check(c.Warm.Images > 0, "warm.images: must be positive")
	c.Cluster.validate(&v)
	if c.Metrics.Address != "" {
		v.Address("metrics.address", c.Metrics.Address)
	}
	c.GC.validate(&v)
	v.OneOf("accessLog.format", c.AccessLog.Format, "json", "trace")
	v.Check(c.AccessLog.Path == "" || c.AccessLog.Path == "-" || filepath.IsAbs(c.AccessLog.Path),
		"accessLog.path = %q: must be an absolute path, or -", c.AccessLog.Path)
	v.OneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.OneOf("log.format", c.Log.Format, "text", "json")
	return v.Err()
}

func (s Server) validate(v *verdict.Verdict) {
	v.Check(s.Workers > 0, "server.workers: must be positive")
	v.Check(s.Streamers > 0, "server.streamers: must be positive")
	v.Check(s.UpstreamTimeout > 0, "server.upstreamTimeout: must be positive")
	v.Check(s.Timeout > 0, "server.timeout: must be positive")
	v.Address("server.address", s.Address)
	scheme := func(key, value string) { v.OneOf(key, value, "", "https", "http") }
	scheme("server.defaultBackend.scheme", s.DefaultBackend.Scheme)
	for i, r := range s.UpstreamRules {
		v.Check(r.Regex != "" && r.Host != "", "server.upstreamRules[%d]: regex and host must be set", i)
		scheme(fmt.Sprintf("server.upstreamRules[%d].scheme", i), r.Scheme)
	}
	for name, r := range s.Registries {
		scheme(fmt.Sprintf("server.registries.%q.scheme", name), r.Scheme)
	}
	for _, a := range s.AllowAddresses {
		_, err := ParsePrefix(a)
		v.Check(err == nil, "server.allowAddresses: %q is not a network such as 10.0.0.0/8, nor an address", a)
	}
	t := s.TLS
	v.Check((t.CertPath == "") == (t.KeyPath == ""), "server.tls: certPath and keyPath must both be set, or neither")
	v.Check(t.ClientCAPath == "" || t.CertPath != "", "server.tls.clientCAPath: needs certPath and keyPath")
}

func (g GC) validate(v *verdict.Verdict) {
	v.Check(g.Disk.MaxSize >= 64<<20, "gc.disk.maxSize: must be at least 64MiB")
	v.Check(g.Interval > 0, "gc.interval: must be positive")
	v.OneOf("gc.policy", g.Policy, policy.Names()...)
	v.Check(!g.Layers.CheckSHA || g.ScrubRate > 0, "gc.scrubRate: must be positive with gc.layers.checkSHA")
	v.Check(g.Grace > 0, "gc.grace: must be positive")
}

// ParsePrefix parses a network, or an address as the network of it alone.
func ParsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

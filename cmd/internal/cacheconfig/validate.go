package cacheconfig

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/reprise-containers/reprise/cache/policy"
)

// Validate reports every value that cannot work, each with its key. What rules and
// names of hosts must be is for those who use them to say.
func (c Cache) Validate() error {
	var v verdict
	v.check(filepath.IsAbs(c.DataPath), "dataPath = %q: must be an absolute path", c.DataPath)
	v.server(c.Server)
	v.check(slices.Contains([]string{"fail-closed", "stale-if-error", "trusted"}, c.Permission.Policy),
		"permission.policy = %q: must be one of fail-closed, stale-if-error, trusted", c.Permission.Policy)
	v.check(c.Permission.Policy != "stale-if-error" || c.Permission.StaleFor > 0, "permission.staleFor: must be positive with policy stale-if-error")
	v.check(c.Warm.Images > 0, "warm.images: must be positive")
	if c.Metrics.Address != "" {
		v.address("metrics.address", c.Metrics.Address)
	}
	v.gc(c.GC)
	v.oneOf("accessLog.format", c.AccessLog.Format, "json", "trace")
	v.check(c.AccessLog.Path == "" || c.AccessLog.Path == "-" || filepath.IsAbs(c.AccessLog.Path),
		"accessLog.path = %q: must be an absolute path, or -", c.AccessLog.Path)
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", c.Log.Format, "text", "json")
	return errors.Join(v...)
}

// verdict collects what is wrong.
type verdict []error

func (v *verdict) check(ok bool, format string, args ...any) {
	if !ok {
		*v = append(*v, fmt.Errorf(format, args...))
	}
}

func (v *verdict) oneOf(key, value string, legal ...string) {
	v.check(slices.Contains(legal, value), "%s = %q: must be one of %s", key, value, strings.Join(legal, ", "))
}

func (v *verdict) address(key, value string) {
	_, _, err := net.SplitHostPort(value)
	v.check(err == nil, "%s = %q: must be host:port", key, value)
}

func (v *verdict) server(s Server) {
	v.check(s.Workers > 0, "server.workers: must be positive")
	v.check(s.Streamers > 0, "server.streamers: must be positive")
	v.check(s.UpstreamTimeout > 0, "server.upstreamTimeout: must be positive")
	v.check(s.Timeout > 0, "server.timeout: must be positive")
	v.address("server.address", s.Address)
	scheme := func(key, value string) { v.oneOf(key, value, "", "https", "http") }
	scheme("server.defaultBackend.scheme", s.DefaultBackend.Scheme)
	for i, r := range s.UpstreamRules {
		v.check(r.Regex != "" && r.Host != "", "server.upstreamRules[%d]: regex and host must be set", i)
		scheme(fmt.Sprintf("server.upstreamRules[%d].scheme", i), r.Scheme)
	}
	for name, r := range s.Registries {
		scheme(fmt.Sprintf("server.registries.%q.scheme", name), r.Scheme)
	}
	for _, a := range s.AllowAddresses {
		_, err := ParsePrefix(a)
		v.check(err == nil, "server.allowAddresses: %q is not a network such as 10.0.0.0/8, nor an address", a)
	}
	t := s.TLS
	v.check((t.CertPath == "") == (t.KeyPath == ""), "server.tls: certPath and keyPath must both be set, or neither")
	v.check(t.ClientCAPath == "" || t.CertPath != "", "server.tls.clientCAPath: needs certPath and keyPath")
}

func (v *verdict) gc(g GC) {
	v.check(g.Disk.MaxSize >= 64<<20, "gc.disk.maxSize: must be at least 64MiB")
	v.check(g.Interval > 0, "gc.interval: must be positive")
	v.oneOf("gc.policy", g.Policy, policy.Names()...)
	v.check(!g.Layers.CheckSHA || g.ScrubRate > 0, "gc.scrubRate: must be positive with gc.layers.checkSHA")
	v.check(g.Grace > 0, "gc.grace: must be positive")
}

// ParsePrefix parses a network, or an address as the network of it alone.
func ParsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

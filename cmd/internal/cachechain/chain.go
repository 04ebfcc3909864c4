// Package cachechain puts the parts of the registry cache together. What is
// connected to what is stated here and nowhere else.
//
//	client -> proxy.Handler -> route.Table        which upstream
//	                        -> permit.Checker     may this caller: HEAD
//	                           -> upstream.Client
//	                        -> index, cache       is it there
//	                        -> fill.Group         the rest of it, once for all
//	                           -> cluster.Cluster   other replicas, the shared tier
//	                           -> upstream.Client
//	                        -> warm.Warmer        what a start reads, ahead
//	gc.Collector -> index, cache
//
// Only upstream.Client dials, so limits, address rules and what registries ask for
// hold for permissions, manifests and blobs alike; permissions have connections of
// their own in it, or a hit would wait for somebody's download.
//
// The engine and the index are each other's equals: a link whose content is gone is
// found out when it is followed, content to which no link leads is found by its
// digest. So neither has to be right for the other to be, and garbage collection is
// the only one to look at both.
//
// The order in which things end is that in which they need each other, see Stages.
package cachechain

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/fill"
	"github.com/reprise-containers/reprise/cache/gc"
	"github.com/reprise-containers/reprise/cache/index"
	"github.com/reprise-containers/reprise/cache/proxy"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
	"github.com/reprise-containers/reprise/cache/proxy/route"
	"github.com/reprise-containers/reprise/cmd/internal/cacheconfig"
	"github.com/reprise-containers/reprise/cmd/internal/certs"
	"github.com/reprise-containers/reprise/cmd/internal/program"
	"github.com/reprise-containers/reprise/cmd/internal/warm"
	"github.com/reprise-containers/reprise/remote/upstream"
)

// Chain is a registry cache without its listeners.
type Chain struct {
	Cache    *cache.Cache
	Index    *index.Index
	Routes   *route.Table
	Upstream *upstream.Client
	Permit   *permit.Checker
	Fill     *fill.Group
	GC       *gc.Collector
	Warm     *warm.Warmer // nil: nothing is fetched ahead
	Cluster  *Cluster     // nil: nothing is shared with other replicas
	Handler  *proxy.Handler
}

// Watch is who is told of what goes on. All of it may be nil but Log.
type Watch struct {
	Log       *slog.Logger
	Requests  proxy.Observer
	Upstream  func(upstream.Observation)
	UserAgent string
	// Status is what this replica tells others of itself. Optional.
	Status func() ReplicaStatus
}

// Open puts the chain together on a data path. Close must be called at the end, after
// its stages have ended.
func Open(cfg cacheconfig.Cache, data *DataPath, keys *certs.Keeper, watch Watch) (_ *Chain, err error) {
	c := &Chain{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.Routes, err = routes(cfg.Server); err != nil {
		return nil, err
	}
	for _, w := range c.Routes.Warnings() {
		watch.Log.Warn("configuration", "server.upstreamRules", w)
	}
	if c.Upstream, err = client(cfg.Server, c.Routes, keys, watch); err != nil {
		return nil, err
	}
	if c.Permit, err = permissions(cfg.Permission, c.Upstream); err != nil {
		return nil, err
	}
	if err := c.openStores(cfg, data, watch.Log); err != nil {
		return nil, err
	}
	filling := fill.Config{Rounding: int64(cfg.Fill.Rounding), JoinAhead: int64(cfg.Fill.JoinAhead), Complete: cfg.Fill.Complete}
	if cfg.Cluster.Enabled() {
		if c.Cluster, err = openCluster(cfg.Cluster, c, data, watch); err != nil {
			return nil, err
		}
		filling.OnVerified, filling.OnMismatch = c.Cluster.Verified, c.Cluster.Mismatched
	}
	c.Fill = fill.New(filling)
	c.GC = gc.New(c.Cache, c.Index, collection(cfg.GC, data, watch.Log))
	if cfg.Warm.Enabled {
		c.Warm = warm.New(c.Cache, c.Fill, warm.Config{
			Bandwidth: int64(cfg.Warm.Bandwidth), Images: cfg.Warm.Images, Again: time.Duration(cfg.Warm.Again),
			MaxBytes: int64(cfg.GC.Disk.MaxSize) / 4,
		}, func(err error) { watch.Log.Info("a recorded start was not fetched ahead", "error", err) })
	}
	parts := proxy.Parts{Cache: c.Cache, Index: c.Index, Fill: c.Fill, Routes: c.Routes, Permit: c.Permit, Upstream: c.Upstream}
	if c.Cluster != nil {
		c.Cluster.Serve(c.Fill)
		parts.Shared = c.Cluster
	}
	c.Handler, err = proxy.New(c.serving(cfg.Server, watch), parts)
	return c, err
}

// openStores opens what is on disk. Both return before they have looked at all they
// hold, so that a restart serves at once.
func (c *Chain) openStores(cfg cacheconfig.Cache, data *DataPath, log *slog.Logger) (err error) {
	c.Cache, err = cache.Open(cache.Config{
		Dir: filepath.Join(data.Dir, cacheDir), MaxBytes: int64(cfg.GC.Disk.MaxSize), MinFreeBytes: int64(cfg.GC.Disk.MinFree),
		Policy: cfg.GC.Policy, WholeBlobs: true, ScanInBackground: true,
		OnError: func(err error) {
			log.Warn("the disk fails; requests are served past it, uncached where need be", "error", err)
		},
	})
	if err != nil {
		return fmt.Errorf("opening the cache: %w", err)
	}
	c.Index, err = index.Open(filepath.Join(data.Dir, indexDir), index.Config{OnError: func(err error) {
		log.Warn("the disk fails; what requests lead to is kept in memory until it works again", "error", err)
	}})
	if err != nil {
		return fmt.Errorf("opening the index: %w", err)
	}
	return nil
}

// routes makes the closed world of upstreams.
func routes(s cacheconfig.Server) (*route.Table, error) {
	cfg := route.Config{Registries: make(map[string]route.Target, len(s.Registries))}
	for _, r := range s.UpstreamRules {
		cfg.Rules = append(cfg.Rules, route.Rule{Regex: r.Regex, Host: r.Host, Scheme: r.Scheme})
	}
	for name, r := range s.Registries {
		cfg.Registries[name] = route.Target{Scheme: r.Scheme, Host: r.Host}
	}
	if s.DefaultBackend.Host != "" {
		cfg.Default = &route.Target{Scheme: s.DefaultBackend.Scheme, Host: s.DefaultBackend.Host}
	}
	t, err := route.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("configuring upstreams: %w", err)
	}
	return t, nil
}

// client makes the one that dials.
func client(s cacheconfig.Server, routes *route.Table, keys *certs.Keeper, watch Watch) (*upstream.Client, error) {
	private, err := allowed(s)
	if err != nil {
		return nil, err
	}
	c, err := upstream.New(upstream.Config{
		UserAgent: watch.UserAgent, Workers: s.Workers, Timeout: time.Duration(s.UpstreamTimeout),
		AllowPrivate: private, Upstreams: configured(routes), AuthRealms: s.AuthRealms, Observe: watch.Upstream,
	})
	if err != nil {
		return nil, fmt.Errorf("configuring upstream requests: %w", err)
	}
	if roots := keys.Roots(); roots != nil {
		c.SetRoots(roots)
	}
	return c, nil
}

// permissions makes the checker. In its configuration 0 is a default and a negative
// time none; in ours 0 is none.
func permissions(p cacheconfig.Permission, c *upstream.Client) (*permit.Checker, error) {
	policy, err := permit.ParsePolicy(p.Policy)
	if err != nil {
		return nil, fmt.Errorf("permission.policy: %w", err)
	}
	cfg := permit.Config{
		Policy: policy, StaleFor: time.Duration(p.StaleFor), TTL: time.Duration(p.TTL), ManifestTTL: time.Duration(p.ManifestTTL),
		RangeTTL: orNone(p.RangeTTL), NegativeTTL: orNone(p.NegativeTTL),
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("permission: %w", err)
	}
	return permit.New(cfg, permit.Head(c.Do)), nil
}

func orNone(d cacheconfig.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return time.Duration(d)
}

func collection(g cacheconfig.GC, data *DataPath, log *slog.Logger) gc.Config {
	return gc.Config{
		Interval: time.Duration(g.Interval), MaxBytes: int64(g.Disk.MaxSize),
		Layers:    gc.Ages{MaxAge: time.Duration(g.Layers.MaxAge), MaxUnused: time.Duration(g.Layers.MaxUnused)},
		Manifests: gc.Ages{MaxAge: time.Duration(g.Manifests.MaxAge), MaxUnused: time.Duration(g.Manifests.MaxUnused)},
		CheckSHA:  g.Layers.CheckSHA, ScrubRate: int64(g.ScrubRate), Grace: time.Duration(g.Grace), Logger: log,
		Free: data.Free, MinFree: int64(g.Disk.MinFree),
	}
}

// serving is how clients are served.
func (c *Chain) serving(s cacheconfig.Server, watch Watch) proxy.Config {
	cfg := proxy.Config{
		Streamers: s.Streamers, WriteTimeout: time.Duration(s.Timeout), MemoryBytes: int64(s.Memory), Observer: watch.Requests,
	}
	if s.Memory == 0 {
		cfg.MemoryBytes = -1
	}
	if c.Warm != nil {
		cfg.OnManifest = c.Warm.OnManifest
	}
	return cfg
}

// Stages returns what has to run. Fetches and the index come first and end last, as
// what is served and collected needs them.
func (c *Chain) Stages() []program.Stage {
	stores := program.Stage{
		{Name: "fetching", Run: c.Fill.Run},
		{Name: "keeping the index", Run: c.Index.Run},
	}
	keeping := program.Stage{{Name: "collecting garbage", Run: c.GC.Run}}
	if c.Warm != nil {
		keeping = append(keeping, program.Task{Name: "fetching ahead", Run: c.Warm.Run})
	}
	if c.Cluster != nil {
		keeping = append(keeping, program.Task{Name: "sharing with other replicas", Run: c.Cluster.Run})
	}
	return []program.Stage{stores, keeping}
}

// Forget drops what is in memory of d.
func (c *Chain) Forget(d digest.Digest) { c.Handler.Forget(d) }

// Close closes what was opened.
func (c *Chain) Close() error {
	var errs []error
	if c.Cluster != nil {
		errs = append(errs, c.Cluster.close())
	}
	if c.Upstream != nil {
		errs = append(errs, c.Upstream.Close())
	}
	if c.Index != nil {
		errs = append(errs, c.Index.Close())
	}
	if c.Cache != nil {
		errs = append(errs, c.Cache.Close())
	}
	return errors.Join(errs...)
}

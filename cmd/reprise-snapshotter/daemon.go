package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/log"

	"github.com/reprise-containers/reprise/backstore/attach"
	"github.com/reprise-containers/reprise/backstore/download"
	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/backstore/readahead"
	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/config"
	"github.com/reprise-containers/reprise/cmd/internal/metrics"
	"github.com/reprise-containers/reprise/cmd/internal/program"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
)

// serve builds the daemon and runs it until ctx ends. Mounts outlive it.
func serve(ctx context.Context, cfg config.Snapshotter) error {
	if err := setUpLog(cfg.Log); err != nil {
		return err
	}
	if err := prepare(ctx, cfg); err != nil {
		return err
	}
	// The server first: it is what keeps a second daemon out.
	server, err := openServer(ctx, cfg, events{ctx})
	if err != nil {
		return err
	}
	defer server.Close()
	m := metrics.New()
	client, err := openClient(cfg)
	if err != nil {
		return err
	}
	counts := m.Prefetch(outcomes())
	blobs, stored, err := openBlobs(ctx, cfg, client, m, counts)
	if err != nil {
		return err
	}
	defer stored.Close()

	attacher := attach.New(server, blobs.Open, attach.Config{
		Readahead: readahead.Config{
			Policy: cfg.Device.ReadaheadPolicy, Trigger: readahead.DefaultConfig.Trigger,
			Max: int64(cfg.Device.Readahead), Block: int64(cfg.Device.ReadaheadBlock),
		},
		Quiet:          blobs.Quiet,
		LocalReadahead: attach.DefaultConfig.LocalReadahead,
	})
	defer func() {
		if err := attacher.Close(); err != nil {
			log.G(ctx).WithError(err).Error("closing what is attached")
		}
	}()
	attaching := program.Stage{{Name: "attaching images", Run: attacher.Run}}
	prefetcher := newPrefetcher(ctx, cfg, blobs, client, counts)
	if prefetcher != nil {
		attaching = append(attaching, program.Task{Name: "fetching ahead", Run: prefetcher.Run})
	}
	recorder := newRecordings(ctx, cfg, attacher, blobs, m)
	attaching = append(attaching, program.Task{Name: "recording containers", Run: recorder.Run})
	if cfg.Download.Enabled {
		limits := downloadConfig(cfg)
		if err := limits.Validate(); err != nil {
			return fmt.Errorf("configuring downloads: %w", err)
		}
		downloader := download.New(attacher, blobs, downloads{ctx}, limits)
		exportDownloads(m, downloader)
		attaching = append(attaching, program.Task{Name: "downloading images", Run: downloader.Run})
	}
	api := &api{cfg: cfg, devices: devices{attacher, stored, prefetcher, recorder}, layers: openLayers(blobs), calls: m.Calls()}
	export(m, stored, attacher, server)
	stages := []program.Stage{
		{{Name: "serving devices", Run: server.Run}},
		attaching,
		{{Name: "serving containerd", Run: api.run}},
	}
	if cfg.Metrics.Address != "" {
		handler := m.Handler(func(context.Context) error { return health(server, api) })
		stages = append(stages, program.Stage{{Name: "serving metrics", Run: func(ctx context.Context) error {
			return serveHTTP(ctx, cfg.Metrics.Address, handler)
		}}})
	}
	log.G(ctx).WithField("root", cfg.Root).Infof("reprise-snapshotter %s is starting", version)
	err = program.Run(ctx, stages...)
	log.G(ctx).Info("reprise-snapshotter has ended; mounted images stay and wait for its successor")
	return err
}

// prepare makes the folders, and makes this process ready to serve devices.
func prepare(ctx context.Context, cfg config.Snapshotter) error {
	for _, dir := range []string{cfg.Root, cfg.RuntimeDir, filepath.Dir(cfg.CacheDir())} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	if err := fusedev.EnsureShared(cfg.Root); err != nil {
		return fmt.Errorf("making %s a shared mount: %w", cfg.Root, err)
	}
	if flusher, err := markFlusher(); err != nil {
		return err
	} else if !flusher {
		log.G(ctx).Debug("not marked as a process that flushes, see docs/device.md")
	}
	return nil
}

func setUpLog(cfg config.Log) error {
	if err := log.SetLevel(cfg.Level); err != nil {
		return err
	}
	return log.SetFormat(log.OutputFormat(cfg.Format))
}

func stateDir(cfg config.Snapshotter) string { return filepath.Join(cfg.Root, "devices") }

func openServer(ctx context.Context, cfg config.Snapshotter, observer fusedev.Observer) (*fusedev.Server, error) {
	server, err := fusedev.Open(ctx, fusedev.Config{
		StateDir:    stateDir(cfg),
		RuntimeDir:  filepath.Join(cfg.RuntimeDir, "devices"),
		MaxInFlight: cfg.Device.MaxInFlight,
		Observer:    observer,
	})
	if err != nil {
		return nil, fmt.Errorf("opening the device server: %w", err)
	}
	return server, nil
}

func openClient(cfg config.Snapshotter) (*registry.Client, error) {
	client, err := registry.New(registry.Config{
		HostsDir:              cfg.Registry.HostsDir,
		DockerConfig:          cfg.Registry.DockerConfig,
		PlainHTTP:             cfg.Registry.PlainHTTP,
		UserAgent:             "reprise/" + version,
		ConnectTimeout:        time.Duration(cfg.Registry.Connect),
		ResponseHeaderTimeout: time.Duration(cfg.Registry.Response),
		IdleTimeout:           time.Duration(cfg.Registry.Response),
	})
	if err != nil {
		return nil, fmt.Errorf("configuring the registry client: %w", err)
	}
	return client, nil
}

// openBlobs returns the read chain and the cache in it.
func openBlobs(ctx context.Context, cfg config.Snapshotter, client *registry.Client, m *metrics.Metrics, counts *metrics.Prefetch) (*chain.Chain, *cache.Cache, error) {
	stored, err := cache.Open(cache.Config{
		Dir:          cfg.CacheDir(),
		MaxBytes:     int64(cfg.Cache.Max),
		MinFreeBytes: int64(cfg.Cache.MinFree),
		Policy:       cfg.Cache.Policy,
		OnError: func(err error) {
			log.G(ctx).WithError(err).Warn("the cache's disk fails; reads go on, uncached where need be")
		},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("opening the cache in %s: %w", cfg.CacheDir(), err)
	}
	retry := blob.RetryConfig{Base: time.Duration(cfg.Read.RetryBase), Max: time.Duration(cfg.Read.RetryMax)}
	if cfg.Read.OnDeadline == "error" {
		retry.Deadline = time.Duration(cfg.Read.Deadline)
	}
	return chain.New(client, chain.Config{
		Retry:       retry,
		Limit:       blob.LimitConfig{Requests: cfg.Registry.Requests, Background: cfg.Registry.Background},
		Cache:       stored,
		CacheReads:  m.Reads("cache"),
		OriginReads: m.Reads("origin"),

		VerifiedReads:   m.Reads("verified"),
		VerifyFailures:  newVerification(ctx, m),
		Verify:          chain.Policy(cfg.Registry.Verify),
		VerifyHosts:     verifyHosts(cfg.Registry.Hosts),
		VerifyReferrers: cfg.Registry.Referrers,

		Prefetch:       counts,
		PrefetchBudget: int64(cfg.Cache.Max),
	}), stored, nil
}

func verifyHosts(hosts map[string]config.Host) map[string]chain.Policy {
	policies := make(map[string]chain.Policy, len(hosts))
	for name, h := range hosts {
		policies[name] = chain.Policy(h.Verify)
	}
	return policies
}

func downloadConfig(cfg config.Snapshotter) download.Config {
	return download.Config{
		Delay:     time.Duration(cfg.Download.Delay),
		Idle:      time.Duration(cfg.Download.Idle),
		ImageRate: int64(cfg.Download.ImageRate),
		TotalRate: int64(cfg.Download.TotalRate),
		Images:    cfg.Download.Images,
		MinFree:   int64(cfg.Cache.MinFree),
	}
}

// serveHTTP serves h on address until ctx ends.
func serveHTTP(ctx context.Context, address string, h http.Handler) error {
	s := &http.Server{Addr: address, Handler: h, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.ListenAndServe(); ctx.Err() == nil {
		return fmt.Errorf("listening on %s (metrics.address): %w", address, err)
	}
	return nil
}

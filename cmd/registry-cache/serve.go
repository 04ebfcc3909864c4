package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/cache/proxy"
	"github.com/reprise-containers/reprise/cmd/internal/accesslog"
	"github.com/reprise-containers/reprise/cmd/internal/cacheadmin"
	"github.com/reprise-containers/reprise/cmd/internal/cachechain"
	"github.com/reprise-containers/reprise/cmd/internal/cacheconfig"
	"github.com/reprise-containers/reprise/cmd/internal/cachepage"
	"github.com/reprise-containers/reprise/cmd/internal/certs"
	"github.com/reprise-containers/reprise/cmd/internal/metrics"
	"github.com/reprise-containers/reprise/cmd/internal/program"
)

const (
	// drainFor is how long clients may finish when the cache is told to end: less
	// than the 30 s after which Kubernetes kills.
	drainFor = 25 * time.Second
	// maxHeader bounds the head of a request, in bytes. Tokens are in there.
	maxHeader = 64 << 10
	// idleFor is how long a connection is kept for a next request.
	idleFor = 2 * time.Minute
)

// service is a registry cache with its listeners.
type service struct {
	cfg     cacheconfig.Cache
	started time.Time
	log     *slog.Logger
	data    *cachechain.DataPath
	keys    *certs.Keeper
	access  *accesslog.Log // nil: none
	chain   *cachechain.Chain
	counts  *metrics.RegistryCache
	traffic *cachepage.Traffic

	clients, admin, watched net.Listener // watched: metrics; nil: none
	peers                   net.Listener // other replicas; nil: none
	ready                   atomic.Bool
	closers                 []func() error // last to first
}

// serve builds a registry cache and runs it until ctx ends.
func serve(ctx context.Context, cfg cacheconfig.Cache) (err error) {
	s := &service{cfg: cfg, started: time.Now(), log: newLog(cfg.Log), counts: metrics.NewRegistryCache(), traffic: cachepage.NewTraffic()}
	defer func() {
		for i := len(s.closers) - 1; i >= 0; i-- {
			err = errors.Join(err, s.closers[i]())
		}
	}()
	if err := s.open(); err != nil {
		return err
	}
	err = program.Run(ctx, s.stages()...)
	s.log.Info("registry-cache has ended")
	return err
}

func newLog(cfg cacheconfig.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Level)) // which was validated
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts))
}

// open opens everything that can fail to be opened.
func (s *service) open() (err error) {
	if s.data, err = cachechain.OpenDataPath(s.cfg.DataPath); err != nil {
		return err
	}
	s.closers = append(s.closers, s.data.Close)
	t := s.cfg.Server.TLS
	s.keys, err = certs.New(certs.Files{Cert: t.CertPath, Key: t.KeyPath, ClientCA: t.ClientCAPath, Roots: t.CAPath},
		s.rootsChanged, func(err error) {
			s.log.Error("changed certificates can not be used; the ones before still are", "error", err)
		})
	if err != nil {
		return fmt.Errorf("server.tls: %w", err)
	}
	// Before anything else makes files, see cacheadmin.Listen.
	if s.admin, err = cacheadmin.Listen(s.cfg.DataPath); err != nil {
		return err
	}
	s.closers = append(s.closers, s.admin.Close)
	if err := s.openAccessLog(); err != nil {
		return err
	}
	if s.chain, err = cachechain.Open(s.cfg, s.data, s.keys, s.watch()); err != nil {
		return err
	}
	s.closers = append(s.closers, s.closeChain)
	s.counts.Export(s.snapshot)
	return s.listen()
}

// closeChain tells of what could not be saved at the end, on a full disk for
// example. It is fetched again, so that is no failure of the service.
func (s *service) closeChain() error {
	if err := s.chain.Close(); err != nil {
		s.log.Warn("ending; what could not be saved is fetched again when it is needed", "error", err)
	}
	return nil
}

func (s *service) listen() error {
	listeners := []struct {
		key, address string
		l            *net.Listener
	}{
		{"server.address", s.cfg.Server.Address, &s.clients},
		{"metrics.address", s.cfg.Metrics.Address, &s.watched},
		{"cluster.address", s.peersAddress(), &s.peers},
	}
	var opened []net.Listener
	for _, x := range listeners {
		if x.address == "" {
			continue
		}
		l, err := net.Listen("tcp", x.address)
		if err != nil {
			err = fmt.Errorf("%s: %w", x.key, err)
			for _, l := range opened {
				err = errors.Join(err, l.Close())
			}
			return err
		}
		*x.l = l
		opened = append(opened, l)
	}
	return nil
}

// peersAddress is where other replicas are served; empty: nowhere.
func (s *service) peersAddress() string {
	if s.chain.Cluster == nil || s.chain.Cluster.TLS == nil {
		return ""
	}
	return s.cfg.Cluster.Address
}

func (s *service) openAccessLog() (err error) {
	cfg := s.cfg.AccessLog
	if cfg.Path == "" {
		return nil
	}
	s.access, err = accesslog.Open(accesslog.Config{
		Path: cfg.Path, Trace: cfg.Format == "trace", Anonymize: cfg.Anonymize, Salt: s.data.Salt,
	}, func(err error) { s.log.Error("requests are not logged", "error", err) })
	if err != nil {
		return fmt.Errorf("accessLog.path: %w", err)
	}
	s.closers = append(s.closers, s.access.Close)
	return nil
}

// snapshot returns what metrics are made of.
func (s *service) snapshot() metrics.CacheSnapshot {
	now := s.chain.Snapshot()
	now.MaxBytes = int64(s.cfg.GC.Disk.MaxSize)
	if s.access != nil {
		now.LostLog = s.access.Lost()
	}
	return now
}

// rootsChanged is told when files with authorities of upstreams were changed.
func (s *service) rootsChanged() { s.chain.Upstream.SetRoots(s.keys.Roots()) }

// observers tells several of each request.
type observers []proxy.Observer

// Observe implements proxy.Observer.
func (o observers) Observe(r proxy.Record) {
	for _, one := range o {
		one.Observe(r)
	}
}

func (s *service) watch() cachechain.Watch {
	told := observers{s.counts}
	if s.cfg.Metrics.Address != "" || s.cfg.Cluster.Enabled() {
		told = append(told, s.traffic)
	}
	if s.access != nil {
		told = append(told, s.access)
	}
	return cachechain.Watch{
		Log: s.log, Requests: told, Upstream: s.counts.ObserveUpstream, UserAgent: "reprise-registry-cache/" + version,
		Status: s.status,
	}
}

// status is what the other replicas are told.
func (s *service) status() cachechain.ReplicaStatus {
	now := cachechain.ReplicaStatus{Version: version, Started: s.started, MaxBytes: int64(s.cfg.GC.Disk.MaxSize)}
	disk := s.chain.Cache.Stats()
	now.Bytes, now.Blobs = disk.Bytes, disk.Blobs
	for _, c := range s.traffic.Kinds() {
		now.Requests += c.Requests
		now.Hits += c.Hits
	}
	return now
}

// stages are what runs. Who watches and logs comes first and ends last, clients are
// the first to be turned away.
func (s *service) stages() []program.Stage {
	watching := program.Stage{{Name: "watching certificates", Run: s.keys.Run}, {Name: "handling SIGHUP", Run: s.hangUps}}
	if s.access != nil {
		watching = append(watching, program.Task{Name: "logging requests", Run: s.access.Run})
	}
	if s.watched != nil {
		watching = append(watching, program.Task{Name: "serving metrics", Run: s.serveMetrics})
	}
	admin := s.chain.Admin(cacheadmin.Stat{
		Version: version, Started: s.started, DataPath: s.cfg.DataPath,
		Address: s.clients.Addr().String(), MaxBytes: int64(s.cfg.GC.Disk.MaxSize),
	})
	stages := append([]program.Stage{watching}, s.chain.Stages()...)
	if s.peers != nil {
		stages = append(stages, program.Stage{{Name: "serving replicas", Run: s.servePeers}})
	}
	return append(stages,
		program.Stage{{Name: "serving the operator", Run: func(ctx context.Context) error { return admin.Serve(ctx, s.admin) }}},
		program.Stage{{Name: "serving clients", Run: s.serveClients}},
	)
}

// hangUps opens the access log again at each SIGHUP, for those who rotate it.
func (s *service) hangUps(ctx context.Context) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGHUP)
	defer signal.Stop(signals)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-signals:
			if s.access == nil {
				continue
			}
			if err := s.access.Reopen(); err != nil {
				s.log.Error("opening the access log again", "error", err)
			}
		}
	}
}

// watching is what those see who watch the cache: metrics, its health, and a page.
func (s *service) watching() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", s.counts.Handler(s.ready.Load))
	mux.Handle("GET /{$}", cachepage.Handler(s.state))
	return mux
}

// mostImages is how many images the page lists.
const mostImages = 20

// askReplicas bounds how long the page waits for the others.
const askReplicas = 300 * time.Millisecond

// state is what the page shows.
func (s *service) state(ctx context.Context) cachepage.State {
	replicas := s.replicas(ctx) // first, as what is counted next counts that too
	now := cachepage.State{
		Version: version, Address: s.clients.Addr().String(), Started: s.started, Now: time.Now(),
		Stats: s.snapshot(), Kinds: s.traffic.Kinds(), Fetches: s.chain.Fill.Progress(), Replicas: replicas,
	}
	if s.cfg.Metrics.Images {
		now.Images = s.traffic.Top(mostImages)
	}
	return now
}

// replicas are those that share, as far as Redis says so within a moment.
func (s *service) replicas(ctx context.Context) (r cachepage.Replicas) {
	c := s.chain.Cluster
	if c == nil || c.Self == "" {
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, askReplicas)
	defer cancel()
	r.All, r.Err = c.List(ctx)
	r.Self = cachechain.Replica{Name: c.Self, Seen: time.Now(), Status: c.Status()}
	return r
}

// serveMetrics serves who watches the cache.
func (s *service) serveMetrics(ctx context.Context) error {
	server := &http.Server{
		Handler: s.watching(), ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(s.watched); ctx.Err() == nil {
		return err
	}
	return nil
}

// servePeers serves other replicas until ctx ends.
func (s *service) servePeers(ctx context.Context) error {
	server := &http.Server{
		Handler: s.chain.Cluster.Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: idleFor,
		TLSConfig: s.chain.Cluster.TLS, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.ServeTLS(s.peers, "", ""); ctx.Err() == nil {
		return fmt.Errorf("serving replicas at %s: %w", s.peers.Addr(), err)
	}
	return nil
}

// serveClients serves until ctx ends, and then for as long as drainFor those who are
// being served.
func (s *service) serveClients(ctx context.Context) error {
	timeout := time.Duration(s.cfg.Server.Timeout)
	server := &http.Server{
		// Not through a wrapper: it would hide from the handler that a
		// connection can send files.
		Handler:           s.chain.Handler,
		ReadHeaderTimeout: timeout, ReadTimeout: timeout, IdleTimeout: idleFor, MaxHeaderBytes: maxHeader,
		TLSConfig: s.keys.Server(), ConnState: s.counts.ConnState,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		s.ready.Store(false)
		s.notify(daemon.SdNotifyStopping)
		s.log.Info("ending; clients have time to finish", "time", drainFor)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainFor)
		defer cancel()
		if server.Shutdown(limit) != nil {
			s.log.Warn("clients that have not finished are cut off")
			server.Close()
		}
	})
	s.announce()
	var err error
	if server.TLSConfig != nil {
		err = server.ServeTLS(s.clients, "", "")
	} else {
		err = server.Serve(s.clients)
	}
	if stop() {
		return fmt.Errorf("serving at %s: %w", s.clients.Addr(), err)
	}
	<-drained
	return nil
}

// announce says that the cache serves.
func (s *service) announce() {
	s.ready.Store(true)
	watched := ""
	if s.watched != nil {
		watched = s.watched.Addr().String()
	}
	s.log.Info("serving", "address", s.clients.Addr().String(), "tls", s.keys.Server() != nil, "metrics", watched,
		"dataPath", s.cfg.DataPath, "version", version)
	s.notify(daemon.SdNotifyReady)
}

// notify tells systemd, if it started the cache.
func (s *service) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.log.Warn("telling systemd the state of the service", "error", err)
	}
}

package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
)

// path is what a master posts to.
const path = "/trace-replayer"

// Bounds of what strangers can hold of a client.
const (
	maxConnections = 64
	maxStreams     = 4 // of a connection
	strangerTime   = 10 * time.Second
)

// closing is how long the other side is waited for when one ends.
const closing = 10 * time.Second

// server is a client of masters.
type server struct {
	cfg      ClientConfig
	key      []byte
	clock    clock
	stopping <-chan struct{} // is closed when the client is to end

	mu   sync.Mutex
	busy string // with whom; "": with nobody
}

// Serve is a client: it does the jobs of masters, one at a time, until ctx ends. It
// then aborts the job that it has, and tells its master what became of it.
func Serve(ctx context.Context, cfg ClientConfig) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	key, err := keyOf(cfg.Secret)
	if err != nil {
		return err
	}
	secured, err := serverTLS(cfg.TLS)
	if err != nil {
		return err
	}
	l := cfg.Listener
	if l == nil {
		if l, err = new(net.ListenConfig).Listen(ctx, "tcp", cfg.Addr); err != nil {
			return fmt.Errorf("listening for masters: %w", err)
		}
	}
	s := &server{cfg: cfg, key: key, clock: newClock(cfg.ahead), stopping: ctx.Done()}
	return s.serve(ctx, netutil.LimitListener(l, maxConnections), secured)
}

func (s *server) serve(ctx context.Context, l net.Listener, secured *tls.Config) error {
	var only http.Protocols
	only.SetHTTP2(true)
	web := &http.Server{
		Handler: s, TLSConfig: secured, Protocols: &only,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ReadHeaderTimeout: strangerTime, IdleTimeout: time.Minute,
		// A session ends when its master is told, not when ctx does.
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ErrorLog:    slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		select {
		case <-served:
			return nil
		case <-ctx.Done():
		}
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), closing)
		defer cancel()
		web.Shutdown(end) //nolint:errcheck // what is not done by now is cut
		return web.Close()
	})
	s.cfg.Log.Info("waiting for masters", "address", l.Addr().String())
	err := web.ServeTLS(l, "", "")
	close(served)
	g.Wait() //nolint:errcheck // closing is best effort
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving masters: %w", err)
}

// ServeHTTP serves one master.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.ProtoMajor != 2:
		http.Error(w, "HTTP/2 is needed", http.StatusHTTPVersionNotSupported)
		return
	case r.Method != http.MethodPost || r.URL.Path != path:
		http.Error(w, "this is a client of trace-replayer", http.StatusNotFound)
		return
	}
	log := s.cfg.Log.With("master", r.RemoteAddr)
	control := http.NewResponseController(w)
	ctx, end := context.WithCancelCause(r.Context())
	defer end(nil)
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { // ends what waits for the master
		defer close(over)
		control.SetReadDeadline(time.Unix(1, 0))  //nolint:errcheck // it is over
		control.SetWriteDeadline(time.Unix(1, 0)) //nolint:errcheck // as before
	})
	defer func() {
		if !stop() {
			<-over // w is not to be used when this returns
		}
	}()
	w.Header().Set("Content-Type", "application/jsonl")
	w.WriteHeader(http.StatusOK)
	if control.Flush() != nil {
		return
	}
	x := &session{
		server: s, cut: end, from: r.RemoteAddr, log: log, out: newOutbox(s.cfg.window),
		wire:  newWire(r.Body, w, control.Flush),
		watch: watchOver(strangerTime, end),
	}
	defer func() { x.watch.pause() }()
	err := x.serve(ctx, r.TLS)
	if cause := context.Cause(ctx); cause != nil && err != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	if err != nil {
		log.Warn("master left", "error", err)
	}
}

// take makes the client busy, and returns with whom it is if it was.
func (s *server) take(from string) (with string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy != "" {
		return s.busy, false
	}
	s.busy = from
	return from, true
}

func (s *server) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = ""
}

package cacheadmin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/index"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

// Collector is what collects garbage.
type Collector interface {
	Collect(ctx context.Context) (Report, error)
	Verify(ctx context.Context, progress func(done, all int)) (Report, error)
}

// Parts are what an operator can look at and change.
type Parts struct {
	Cache     *cache.Cache
	Index     *index.Index
	Permit    *permit.Checker
	Forget    func(digest.Digest) // what is in memory
	Collector Collector
	Stat      func() Stat
	// Purged is told what an operator had forgotten, and which blobs that named, so
	// that other replicas forget it too. nil: there are none.
	Purged func(ctx context.Context, p Purge, named []digest.Digest) error
}

// Server answers a Client.
type Server struct {
	parts Parts
	mux   *http.ServeMux
}

// NewServer returns a server of parts, all of which are needed but Purged.
func NewServer(parts Parts) *Server {
	s := &Server{parts: parts, mux: http.NewServeMux()}
	s.mux.HandleFunc("GET /stat", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.parts.Stat(), nil) })
	s.mux.HandleFunc("GET /blobs", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.blobs(), nil) })
	s.mux.HandleFunc("POST /gc", func(w http.ResponseWriter, r *http.Request) {
		if err := s.scanned(r.Context()); err != nil {
			reply(w, nil, err)
			return
		}
		report, err := s.parts.Collector.Collect(r.Context())
		reply(w, report, err)
	})
	s.mux.HandleFunc("POST /verify", s.verify)
	s.mux.HandleFunc("POST /purge", s.purge)
	return s
}

// Serve answers at l until ctx ends, and ends requests that are under way then.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: s.mux, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}

func reply(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// The client may have gone, which is its affair.
	_ = json.NewEncoder(w).Encode(v)
}

// blobs returns what is kept, what was used last first.
func (s *Server) blobs() []Blob {
	out := []Blob{}
	for _, b := range s.parts.Cache.Blobs() {
		out = append(out, Blob{
			Digest: b.Descriptor.Digest, MediaType: b.Descriptor.MediaType, Origin: b.Origin,
			Size: b.Descriptor.Size, Bytes: b.Bytes, Complete: b.Complete,
			Verified: b.VerifiedAt, Fetched: b.FetchedAt, Used: b.LastUsed, Holders: b.Holders,
		})
	}
	slices.SortFunc(out, func(a, b Blob) int {
		return cmp.Or(b.Used.Compare(a.Used), cmp.Compare(a.Digest, b.Digest))
	})
	return out
}

// scanLook is how often it is looked whether all that is on disk is known.
const scanLook = 50 * time.Millisecond

// scanned waits until all that is on disk is known: after a start, what was not seen
// yet would be passed over, and nobody told.
func (s *Server) scanned(ctx context.Context) error {
	ticker := time.NewTicker(scanLook)
	defer ticker.Stop()
	for !s.parts.Cache.Scanned() || !s.parts.Index.Scanned() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the scan of what is on disk: %w", ctx.Err())
		}
	}
	return nil
}

// progressEvery is how often a client is told how far verification is.
const progressEvery = time.Second

// verify streams how far it is, and ends with a report.
func (s *Server) verify(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	e, flush := json.NewEncoder(w), http.NewResponseController(w)
	var last time.Time
	var p Progress
	if err := s.scanned(r.Context()); err != nil {
		_ = e.Encode(Progress{Done: true, Error: err.Error()})
		return
	}
	report, err := s.parts.Collector.Verify(r.Context(), func(done, all int) {
		p.Blobs, p.All = done, all
		if now := time.Now(); now.Sub(last) >= progressEvery {
			last = now
			_ = e.Encode(p)
			_ = flush.Flush()
		}
	})
	p.Done, p.Report = true, report
	if err != nil {
		p.Error = err.Error()
	}
	_ = e.Encode(p)
}

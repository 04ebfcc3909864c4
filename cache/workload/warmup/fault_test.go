package warmup_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/reprise-containers/reprise/cache/workload/content"
	"github.com/reprise-containers/reprise/cache/workload/outcome"
	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/cache/workload/warmup"
)

func blobs(n int) []trace.Request {
	var requests []trace.Request
	for i := range n {
		requests = append(requests, get("1", fmt.Sprintf("v2/r%d/blobs/%d", i%5, i), int64(100+i)))
	}
	return requests
}

// A registry that goes away in the middle ends the warmup, what was not pushed is not
// bad, and the next one pushes the rest.
func TestLost(t *testing.T) {
	const all, before = 400, 150
	for name, lose := range map[string]func(s *registry){
		"503":  func(s *registry) { s.refuse = func(*http.Request) int { return http.StatusServiceUnavailable } },
		"cut":  func(s *registry) { s.refuse = func(*http.Request) int { panic(http.ErrAbortHandler) } },
		"gone": func(s *registry) { go s.CloseClientConnections(); s.Listener.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newRegistry(t)
			s.refuse = func(*http.Request) int {
				if len(s.pushes) == before {
					lose(s)
				}
				return 0
			}
			var saved outcome.Map
			cfg := warmup.Config{Maker: content.New(1, false), Threads: 4, Attempts: 2, Save: func(m outcome.Map) error { saved = maps.Clone(m); return nil }}
			m, stats, err := warmup.Run(t.Context(), s.client(t), trace.Of(blobs(all)...), nil, cfg)
			if err == nil || !strings.Contains(err.Error(), "lost") {
				t.Fatalf("%v", err)
			}
			good := 0
			for uri, d := range m {
				if d != outcome.Bad {
					good++
					if repo, _, _ := strings.Cut(uri, "/blobs/"); s.content["/"+repo+"/blobs/"+d] == nil {
						t.Errorf("%s is in the map and not in the registry", uri)
					}
				}
			}
			if good < before-4 || stats.Bad > 20 || len(m) != good+stats.Bad || !maps.Equal(saved, m) {
				t.Errorf("%d of the map are good, %+v", good, stats)
			}
			if name == "gone" {
				return // it does not come again
			}
			s.mu.Lock()
			s.refuse = func(*http.Request) int { return 0 }
			s.mu.Unlock()
			m, stats, err = warmup.Run(t.Context(), s.client(t), trace.Of(blobs(all)...), m, cfg)
			if err != nil || len(m) != all || stats.Bad != 0 || stats.Present != good || stats.Pushed != all-good {
				t.Errorf("%v, %+v, %d in the map", err, stats, len(m))
			}
		})
	}
}

// Blobs that the registry cannot take, each for itself, do not end a warmup.
func TestPoison(t *testing.T) {
	s := newRegistry(t)
	poison := map[string]bool{}
	for i := range 6 {
		uri := fmt.Sprintf("v2/r%d/blobs/%d", i%5, i*10)
		d, _ := content.New(1, false).Digest(t.Context(), uri, int64(100+i*10))
		poison[d.String()] = true
	}
	s.refuse = func(r *http.Request) int {
		if poison[r.URL.Query().Get("digest")] {
			return http.StatusInternalServerError
		}
		return 0
	}
	_, stats, err := warmup.Run(t.Context(), s.client(t), trace.Of(blobs(60)...), nil, warmup.Config{Maker: content.New(1, false), Attempts: 2})
	if err != nil || stats.Bad == 0 || stats.Bad > 6 || stats.Why["status"] != stats.Bad || stats.Pushed != 60-stats.Bad {
		t.Errorf("%v, %+v", err, stats)
	}
}

// Every request fails now and then, in every way that may pass, and nothing is bad.
func TestPassing(t *testing.T) {
	s := newRegistry(t)
	n := 0
	failed := map[string]int{}
	s.refuse = func(r *http.Request) int {
		what := fmt.Sprint(r.Method, " of a manifest: ", strings.Contains(r.URL.Path, "/manifests/"))
		if n++; n%3 != 0 || n == 3 {
			return 0
		}
		failed[what]++
		switch n / 3 % 3 {
		case 0:
			panic(http.ErrAbortHandler)
		case 1:
			return http.StatusTooManyRequests
		}
		return http.StatusBadGateway
	}
	m, stats := warm(t, s, nil, warmup.Config{Verify: 1, Attempts: 12})
	if stats.Bad != 0 || len(m) != 7 || stats.Verified != 7 {
		t.Errorf("%+v, %v", stats, m)
	}
	t.Log(failed)
}

// A registry that does not let read where a blob is mounted from gets it again.
func TestNoMount(t *testing.T) {
	s := newRegistry(t)
	s.refuse = func(r *http.Request) int {
		if r.URL.Query().Get("mount") != "" {
			return http.StatusForbidden
		}
		return 0
	}
	m, stats := warm(t, s, nil, warmup.Config{Verify: 1})
	if stats.Bad != 0 || stats.Shared != 1 || stats.Mounted != 0 || len(m) != 7 {
		t.Errorf("%+v, %v", stats, m)
	}
}

// A warmup that is interrupted ends, and its map has what was pushed.
func TestInterrupted(t *testing.T) {
	s := newRegistry(t)
	ctx, cancel := context.WithCancel(t.Context())
	var n atomic.Int64
	s.refuse = func(*http.Request) int {
		if n.Add(1) == 300 {
			cancel()
		}
		return 0
	}
	var saved outcome.Map
	m, stats, err := warmup.Run(ctx, s.client(t), trace.Of(blobs(400)...), nil, warmup.Config{
		Maker: content.New(1, false), Threads: 8, Save: func(m outcome.Map) error { saved = maps.Clone(m); return nil },
	})
	if !errors.Is(err, context.Canceled) || stats.Bad != 0 || len(m) == 0 || len(m) == 400 || !maps.Equal(saved, m) {
		t.Errorf("%v, %+v, %d in the map, %d saved", err, stats, len(m), len(saved))
	}
}

// The figures given to Progress are the reader's to keep.
func TestProgress(t *testing.T) {
	s := newRegistry(t)
	s.refuse = func(r *http.Request) int {
		if r.Method == http.MethodPut && len(s.pushes)%3 == 1 {
			s.pushes["refused"]++
			return http.StatusForbidden
		}
		return 0
	}
	told := make(chan warmup.Stats, 1000)
	done := make(chan int)
	go func() {
		sum := 0
		for x := range told {
			sum = 0
			for _, n := range x.Why {
				sum += n
			}
		}
		done <- sum
	}()
	_, stats := warm(t, s, nil, warmup.Config{Progress: func(x warmup.Stats) { told <- x }})
	close(told)
	if sum := <-done; sum != stats.Bad || stats.Done != stats.Objects {
		t.Errorf("told of %d, %+v", sum, stats)
	}
}

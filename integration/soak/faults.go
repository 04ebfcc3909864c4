package main

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/reprise-containers/reprise/integration/registrycache/origin"
)

// faults are what an upstream does wrong, with names for the report.
var faults = []struct {
	name string
	make func(rnd func(n int64) int64) origin.Fault
}{
	{"connection cut", func(r func(int64) int64) origin.Fault { return origin.Fault{CutAfter: 1 + r(2<<20)} }},
	{"one byte inverted", func(r func(int64) int64) origin.Fault { return origin.Fault{Flip: 1 + r(1<<20)} }},
	{"other bytes", func(func(int64) int64) origin.Fault { return origin.Fault{Lie: []byte("lie")} }},
	{"other bytes, other digest", func(func(int64) int64) origin.Fault {
		return origin.Fault{Lie: []byte("lie"), Header: map[string]string{"Docker-Content-Digest": "sha256:0000000000000000000000000000000000000000000000000000000000000000"}}
	}},
	{"truncated", func(r func(int64) int64) origin.Fault { return origin.Fault{Truncate: 1 + r(5000)} }},
	{"truncated without length", func(r func(int64) int64) origin.Fault { return origin.Fault{Truncate: 1 + r(5000), Unframed: true} }},
	{"range ignored", func(func(int64) int64) origin.Fault { return origin.Fault{IgnoreRange: true} }},
	{"another range", func(func(int64) int64) origin.Fault { return origin.Fault{Shift: 512} }},
	{"redirected to storage", func(func(int64) int64) origin.Fault { return origin.Fault{Redirect: true} }},
	{"500", func(func(int64) int64) origin.Fault { return origin.Fault{Status: 500, Body: "oops"} }},
	{"503", func(func(int64) int64) origin.Fault { return origin.Fault{Status: 503} }},
	{"429", func(func(int64) int64) origin.Fault {
		return origin.Fault{Status: 429, Header: map[string]string{"Retry-After": "1"}}
	}},
	{"404", func(func(int64) int64) origin.Fault { return origin.Fault{Status: 404} }},
	{"401", func(func(int64) int64) origin.Fault { return origin.Fault{Status: 401} }},
	{"slow", func(func(int64) int64) origin.Fault { return origin.Fault{Rate: 512 << 10} }},
	{"late", func(r func(int64) int64) origin.Fault {
		return origin.Fault{Delay: time.Duration(r(int64(time.Second)))}
	}},
	{"hanging", func(func(int64) int64) origin.Fault { return origin.Fault{Hang: true} }},
	{"hanging in the body", func(func(int64) int64) origin.Fault { return origin.Fault{HoldAt: 4096} }},
}

// fault is the upstream's rule.
func (s *soak) fault(*http.Request) origin.Fault {
	s.mu.Lock()
	quiet := s.quiet
	s.mu.Unlock()
	if quiet || rand.Float64() >= s.faults { //nolint:gosec // chance is all that is wanted
		return origin.Fault{}
	}
	f := faults[rand.IntN(len(faults))]
	s.tally.add("fault: " + f.name)
	return f.make(rand.Int64N)
}

// moods has the upstream be honest for a quarter of the time: then clients must
// get what they ask for, whatever came before. What hangs is let go from time to
// time, and tags move.
func (s *soak) moods(ctx context.Context) {
	rnd := s.random(1 << 33)
	for i := 0; sleep(ctx, time.Second); i++ {
		s.stock.move(s.up, rnd.IntN(tags))
		if i%5 == 0 {
			s.up.Release()
		}
		if i%40 == 30 {
			s.set(func() { s.quiet = true })
		}
		if i%40 == 0 {
			s.set(func() { s.quiet = false })
		}
	}
	s.set(func() { s.quiet = true })
	s.up.Release()
}

// operate does what operators do.
func (s *soak) operate(ctx context.Context) {
	rnd := s.random(1 << 34)
	for sleep(ctx, time.Duration(rnd.ExpFloat64()*float64(4*time.Second))) {
		s.mu.Lock()
		down := s.down
		s.mu.Unlock()
		if down {
			continue
		}
		args := []string{"gc"}
		switch rnd.IntN(8) {
		case 0:
			args = []string{"verify"}
		case 1, 2:
			args = []string{"purge", s.stock.pick(rnd).Digest.String()}
		case 3:
			args = []string{"stat", "--blobs"}
		}
		_, err := s.cache.Command(ctx, args...)
		switch {
		case err == nil:
			s.tally.add("command: " + args[0])
		case args[0] == "verify":
			s.tally.add("command: verify that failed (killed, or bytes that were damaged)")
		default:
			s.tally.add("command that failed (killed)")
		}
	}
}

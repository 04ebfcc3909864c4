// Command soak runs a registry cache for a long time under everything that goes
// wrong at once: clients of all kinds, an upstream that lies, breaks and refuses,
// a disk that is a fraction of what is asked for, collections, and kills. Each byte
// that any client gets is compared. It fails if one is wrong in an answer that looks
// whole, if a caller gets what is another's, or if files, descriptors, goroutines or
// memory grow while the load does not. It prints a report.
//
// The last third of the time is without kills, so that what grows shows.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/reprise-containers/reprise/integration/registrycache/instance"
	"github.com/reprise-containers/reprise/integration/registrycache/origin"
)

// options are what can be chosen.
type options struct {
	time    time.Duration
	clients int
	kill    time.Duration
	faults  float64
	seed    uint64
	module  string
}

func main() {
	var o options
	flag.DurationVar(&o.time, "time", time.Hour, "how long")
	flag.IntVar(&o.clients, "clients", 24, "clients at a time")
	flag.DurationVar(&o.kill, "kill", 40*time.Second, "mean time between two kills")
	flag.Float64Var(&o.faults, "faults", 0.06, "share of upstream answers that something is wrong with")
	flag.Uint64Var(&o.seed, "seed", 1, "of what happens; not of when")
	flag.StringVar(&o.module, "module", ".", "root folder of the source tree")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// Sizes: what is asked for is several times what the cache may keep.
const (
	diskLimit = 192 << 20
	minTime   = 30 * time.Second // below it nothing would be seen
)

// soak is one run.
type soak struct {
	options
	up    *origin.Origin
	cache *instance.Instance
	stock *stock
	tally tally

	mu      sync.Mutex
	quiet   bool // the upstream is honest
	down    bool // the cache is being started
	users   map[string]string
	samples []sample
	kills   int
	stops   int
	begun   time.Time
}

func run(ctx context.Context, o options) (err error) {
	if o.time < minTime {
		return fmt.Errorf("a soak takes %v or more", minTime)
	}
	dir, err := os.MkdirTemp("", "reprise-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &soak{options: o, begun: time.Now()}
	if err := s.boot(ctx, dir); err != nil {
		return err
	}
	defer s.up.Close()
	defer func() { err = errors.Join(err, s.cache.Stop()) }()
	if err := s.soak(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "--- the end of the log\n%s", tail(s.cache.Log(), 16<<10))
		return err
	}
	leaks, err := s.leaks(ctx)
	if err != nil {
		return err
	}
	s.report(os.Stdout, leaks)
	return errors.Join(s.tally.failed(), leaks.failed())
}

// boot starts the upstream and the cache.
func (s *soak) boot(ctx context.Context, dir string) (err error) {
	program, err := instance.Build(ctx, s.module, dir)
	if err != nil {
		return err
	}
	if s.up, err = origin.Listen(); err != nil {
		return err
	}
	s.up.Private(time.Hour, 403)
	s.stock = newStock(s.seed)
	s.stock.put(s.up)
	s.users = map[string]string{}
	for _, u := range []string{"alice", "bob", mallory} {
		s.up.AddUser(u, u+"'s password")
		s.users[u] = s.up.Token(u)
	}
	s.up.SetReaders(repository, "alice", "bob")
	s.up.SetRule(s.fault)
	config := instance.Config{Program: program, Dir: filepath.Join(dir, "cache"), Upstream: s.up.Address, Values: settings}
	if err := os.Mkdir(config.Dir, 0o700); err != nil {
		return err
	}
	if s.cache, err = instance.New(config); err != nil {
		return err
	}
	return s.cache.Start(ctx)
}

// settings have collection under pressure all the time.
var settings = instance.Values{
	"server": instance.Values{"workers": 16, "streamers": 64, "upstreamTimeout": "3s", "timeout": "5s"},
	"fill":   instance.Values{"complete": true},
	"gc": instance.Values{
		"disk":     instance.Values{"maxSize": diskLimit, "minFree": "0B"},
		"interval": "5s", "grace": "20s", "scrubRate": "64MiB",
		"layers":    instance.Values{"maxAge": "10m", "maxUnused": "60s", "checkSHA": true},
		"manifests": instance.Values{"maxAge": "1m", "maxUnused": "30s"},
	},
	"permission": instance.Values{"rangeTTL": "2s", "negativeTTL": "1s"},
}

// soak runs everything for as long as it is to run.
func (s *soak) soak(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.time, errTime)
	defer cancel()
	var all sync.WaitGroup
	for i := range s.clients {
		all.Go(func() { s.client(ctx, i) })
	}
	all.Go(func() { s.watch(ctx) })
	all.Go(func() { s.moods(ctx) })
	all.Go(func() { s.operate(ctx) })
	err := s.killer(ctx)
	if err != nil {
		cancel()
	}
	all.Wait()
	if err == nil && !errors.Is(context.Cause(ctx), errTime) {
		err = context.Cause(ctx)
	}
	return err
}

var errTime = errors.New("the time is over")

// killer ends the cache at random, hard or soft, and starts it again, until two
// thirds of the time are over; then it waits for the end.
func (s *soak) killer(ctx context.Context) error {
	rnd := s.random(1 << 32)
	calm := s.begun.Add(s.time * 2 / 3)
	for {
		wait := time.Duration(rnd.ExpFloat64() * float64(s.kill))
		if time.Now().Add(wait).After(calm) {
			<-ctx.Done()
			return nil
		}
		if !sleep(ctx, wait) {
			return nil
		}
		s.set(func() { s.down = true })
		if rnd.IntN(4) == 0 {
			s.stops++
			if err := s.cache.Stop(); err != nil {
				return err
			}
		} else {
			s.kills++
			s.cache.Kill()
		}
		if err := s.cache.Start(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		s.set(func() { s.down = false })
	}
}

func (s *soak) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// sleep waits and reports whether the context still goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func tail(text string, n int) string { return text[max(0, len(text)-n):] }

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// sample is the state of the cache at one moment.
type sample struct {
	at          time.Duration // since the begin
	descriptors int
	goroutines  int
	resident    int64
	files       int
	disk        int64
}

// watch takes samples, and looks at the disk limit.
func (s *soak) watch(ctx context.Context) {
	every := max(s.time/60, time.Second)
	for sleep(ctx, every) {
		s.mu.Lock()
		down := s.down
		s.mu.Unlock()
		if down {
			continue
		}
		m, err := s.sample(ctx)
		if err != nil {
			s.tally.add("sample that failed (killed)")
			continue
		}
		// Files come and go while they are counted.
		for try := 0; m.disk > diskLimit+slack && try < 3 && sleep(ctx, time.Second); try++ {
			if again, err := s.sample(ctx); err == nil {
				m = again
			}
		}
		if m.disk > diskLimit+slack {
			s.tally.fail(fmt.Errorf("%d bytes on disk, the limit is %d", m.disk, int64(diskLimit)))
		}
		s.set(func() { s.samples = append(s.samples, m) })
	}
}

// slack is what lies in dataPath beside content: index, marks, files that are
// being replaced.
const slack = 8 << 20

func (s *soak) sample(ctx context.Context) (sample, error) {
	m := sample{at: time.Since(s.begun)}
	metrics, err := s.cache.Scrape(ctx)
	if err != nil {
		return m, err
	}
	m.goroutines = int(metrics["go_goroutines"])
	fds, err := s.cache.Descriptors()
	if err != nil {
		return m, err
	}
	m.descriptors = len(fds)
	if m.resident, err = s.cache.Resident(); err != nil {
		return m, err
	}
	files, err := s.cache.Files()
	if err != nil {
		return m, err
	}
	m.files = len(files)
	for _, n := range files {
		m.disk += n
	}
	return m, nil
}

// leaks is what is left when nobody asks for anything any more.
type leaks struct {
	fresh, end sample // after a start without clients, and after the load
	open       []string
	unlisted   []string // data files that the cache does not know
}

// quiesce is how long connections and idle blobs may take to be let go.
const quiesce = 4 * time.Minute

// leaks waits until the cache is as quiet as it is after a start, looks at what it
// has, and compares it with a cache that was just started on the same folder.
func (s *soak) leaks(ctx context.Context) (l leaks, err error) {
	deadline := time.Now().Add(quiesce)
	if l.end, err = s.sample(ctx); err != nil {
		return l, err
	}
	for time.Now().Before(deadline) && sleep(ctx, 2*time.Second) {
		m, err := s.sample(ctx)
		if err != nil {
			return l, err
		}
		l.end = m
		if m.descriptors < 30 && m.goroutines < 60 {
			break
		}
	}
	if l.open, err = s.cache.Descriptors(); err != nil {
		return l, err
	}
	if l.unlisted, err = s.unlisted(ctx); err != nil {
		return l, err
	}
	if err := s.cache.Stop(); err != nil {
		return l, err
	}
	if err := s.cache.Start(ctx); err != nil {
		return l, err
	}
	time.Sleep(2 * time.Second)
	l.fresh, err = s.sample(ctx)
	return l, err
}

// unlisted returns the data files of blobs that are not in the list of blobs.
func (s *soak) unlisted(ctx context.Context) ([]string, error) {
	if _, err := s.cache.Command(ctx, "gc"); err != nil {
		return nil, err
	}
	files, err := s.cache.Files()
	if err != nil {
		return nil, err
	}
	list, err := s.cache.Command(ctx, "stat", "--blobs", "--json")
	if err != nil {
		return nil, err
	}
	known := strings.Count(list, `"digest"`)
	var data []string
	for name := range files {
		if strings.HasSuffix(name, ".data") && !strings.Contains(name, "quarantine") {
			data = append(data, name)
		}
	}
	if len(data) > known {
		return data[known:], nil
	}
	return nil, nil
}

// allowance is by how much a cache that had work may differ from one that has
// just been started.
const allowance = 16

func (l leaks) failed() error {
	var errs []error
	if d := l.end.descriptors - l.fresh.descriptors; d > allowance {
		errs = append(errs, fmt.Errorf("%d descriptors more than after a start: %s", d, strings.Join(l.open, " ")))
	}
	if d := l.end.goroutines - l.fresh.goroutines; d > allowance {
		errs = append(errs, fmt.Errorf("%d goroutines more than after a start", d))
	}
	if n := len(l.unlisted); n > 0 {
		errs = append(errs, fmt.Errorf("%d data files that no blob is known for, after a collection", n))
	}
	return errors.Join(errs...)
}

// report prints what happened.
func (s *soak) report(w io.Writer, l leaks) {
	fmt.Fprintf(w, "%v, %d clients, seed %d; %d blobs of %.0f MB for a cache of %.0f MB\n",
		time.Since(s.begun).Round(time.Second), s.clients, s.seed, len(s.stock.blobs), float64(s.stock.total())/1e6, float64(diskLimit)/1e6)
	fmt.Fprintf(w, "%d kills, %d restarts; %.1f GB compared by clients, %.1f GB sent by the upstream\n",
		s.kills, s.stops, float64(s.tally.read)/1e9, float64(s.up.Stats().Bytes)/1e9)
	fmt.Fprintf(w, "%d failures\n\n", s.tally.wrong)
	s.tally.print(w)
	fmt.Fprintf(w, "\n%8s %12s %11s %12s %8s %9s\n", "minute", "descriptors", "goroutines", "resident MB", "files", "disk MB")
	step := max(len(s.samples)/20, 1)
	for i := 0; i < len(s.samples); i += step {
		s.samples[i].print(w, fmt.Sprintf("%.1f", s.samples[i].at.Minutes()))
	}
	l.end.print(w, "idle")
	l.fresh.print(w, "started")
}

func (m sample) print(w io.Writer, when string) {
	fmt.Fprintf(w, "%8s %12d %11d %12.0f %8d %9.0f\n", when, m.descriptors, m.goroutines, float64(m.resident)/1e6, m.files, float64(m.disk)/1e6)
}

package replayer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/reprise-containers/reprise/cache/workload/content"
	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/outcome"
	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cache/workload/warmup"
	"github.com/reprise-containers/reprise/cmd/internal/replayconfig"
	"github.com/reprise-containers/reprise/cmd/internal/replayprogress"
)

// originalRepository is where the original pushes everything to.
const originalRepository = "test_repo"

// repository returns the one that everything is in, "" if it is where the trace says.
func (p *Replayer) repository() string {
	if p.Config.Trace.Compat && p.Config.Warmup.Repository == "" {
		return originalRepository
	}
	return p.Config.Warmup.Repository
}

// asBlobs reports whether manifests are pushed as blobs.
func (p *Replayer) asBlobs() bool {
	return p.Config.Trace.Compat || p.Config.Warmup.Manifests == "blobs"
}

// zeros reports whether blobs are zeros.
func (p *Replayer) zeros() bool {
	random := p.Config.Warmup.Random
	return random != nil && !*random || random == nil && p.Config.Trace.Compat
}

// Warmup pushes what the trace asks for to the first registry and writes the interim
// map.
func (p *Replayer) Warmup(ctx context.Context) error {
	if err := p.Config.For(replayconfig.ModeWarmup); err != nil {
		return err
	}
	cfg := p.Config.Warmup
	if err := writable(cfg.Output); err != nil {
		return err
	}
	registries, err := p.registries()
	if err != nil {
		return err
	}
	known, err := outcome.ReadMap(cfg.Output)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	client, err := load.NewClient(load.Config{Registries: registries[:1], Threads: cfg.Threads, Timeout: p.Config.Run.Timeout.Std()})
	if err != nil {
		return err
	}
	defer client.Close()
	t, err := p.open()
	if err != nil {
		return err
	}
	defer t.Close()
	defer p.tell(t)
	var mu sync.Mutex
	var now warmup.Stats
	work := func(ctx context.Context) error {
		_, stats, err := warmup.Run(ctx, client, t, known, warmup.Config{
			Maker: content.New(cfg.Seed, p.zeros()), Threads: cfg.Threads, Repository: p.repository(), Blobs: p.asBlobs(),
			Dedupe: cfg.Dedupe, Verify: cfg.Verify,
			Save: func(m outcome.Map) error { return m.Write(cfg.Output) },
			Progress: func(s warmup.Stats) {
				mu.Lock()
				defer mu.Unlock()
				now = s
			},
		})
		mu.Lock()
		defer mu.Unlock()
		now = stats
		return err
	}
	state := func() replayprogress.State {
		mu.Lock()
		defer mu.Unlock()
		s := replayprogress.State{Fraction: -1, Totals: report.Totals{Requests: int64(now.Done), Failed: int64(now.Bad), Bytes: now.Bytes}}
		if now.Objects > 0 {
			s.Fraction = float64(now.Done) / float64(now.Objects)
		}
		return s
	}
	err = replayprogress.During(ctx, p.Log, state, work)
	if now.Objects > 0 {
		p.printWarmup(now)
	}
	return err
}

func (p *Replayer) printWarmup(s warmup.Stats) {
	fmt.Fprintf(p.Out, "%d blobs and manifests are asked for: %d pushed (%s), %d there already, %d bad\n",
		s.Objects, s.Pushed, report.Bytes(s.Bytes), s.Present, s.Bad)
	if s.Shared > 0 {
		fmt.Fprintf(p.Out, "%d have the content of another, %d of them mounted\n", s.Shared, s.Mounted)
	}
	fmt.Fprintf(p.Out, "%d read back and compared\n", s.Verified)
	for _, why := range slices.Sorted(maps.Keys(s.Why)) {
		fmt.Fprintf(p.Out, "bad because of %s: %d\n", why, s.Why[why])
	}
	if s.Example != "" {
		fmt.Fprintf(p.Out, "for instance %s\n", s.Example)
	}
}

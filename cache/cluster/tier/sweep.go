package tier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/remote/blob/stall"
)

// SweepConfig is what a Sweep keeps.
type SweepConfig struct {
	MaxBytes int64         // of all objects as the store counts them; 0: no bound
	Grace    time.Duration // how long what is not needed stays for those who use it still; 1 h if 0
}

// Removed counts what was removed.
type Removed struct {
	Count int
	Bytes int64
}

// SweepReport is what a Sweep found and did.
type SweepReport struct {
	Objects    int     // that stay
	Bytes      int64   // of those, as the store counts them
	Superseded Removed // generations
	Leftover   Removed // of Puts that were killed
	Evicted    Removed // for MaxBytes
	Foreign    int     // objects that are not the tier's, which are left alone
}

// generation is one object of a digest.
type generation struct {
	Entry
	number uint64
	newer  time.Time // when the next generation came; zero: this is the newest
}

// Sweep removes generations that were superseded longer than Grace ago, what is left
// of Puts that were killed, and for MaxBytes the rest of the superseded ones and then
// the oldest objects. What is not in Folder, such as objects of another secret, it
// neither lists nor counts. It goes on after an error where it can, and returns the
// first; it ends with ErrSilent when the store says nothing for the Timeout.
// Ages are by this machine's clock and the store's, which must agree within Grace.
// Several replicas may sweep at once: they choose the same. A Sweep has some 200 bytes
// of memory for each object.
func (t *Tier) Sweep(ctx context.Context, cfg SweepConfig) (report SweepReport, err error) {
	if cfg.Grace == 0 {
		cfg.Grace = time.Hour
	}
	before := time.Now().Add(-cfg.Grace)
	if tidier, ok := t.store.(Tidier); ok {
		err = watched(ctx, t.timeout, func(w *stall.Watch) (err error) {
			report.Leftover, err = tidier.Tidy(w.Context(), t.Folder(), before, w.Start)
			return err
		})
		if err != nil {
			err = fmt.Errorf("tidying up the shared tier: %w", err)
		}
		if errors.Is(err, ErrSilent) {
			return report, err
		}
	}
	all, foreign, listErr := t.generations(ctx)
	if listErr != nil {
		err = cmp.Or(err, fmt.Errorf("listing the shared tier: %w", listErr))
		if !errors.Is(listErr, ErrUnreadable) {
			return report, err
		}
	}
	s := sweep{tier: t, report: report, err: err}
	s.report.Foreign = foreign
	for _, g := range all {
		s.report.Objects++
		s.report.Bytes += g.Size
	}
	slices.SortFunc(all, leaving)
	for _, g := range all {
		switch superseded := !g.newer.IsZero(); {
		case superseded && g.newer.Before(before):
			s.remove(ctx, g, &s.report.Superseded)
		case cfg.MaxBytes > 0 && s.report.Bytes > cfg.MaxBytes:
			s.remove(ctx, g, &s.report.Evicted)
		}
	}
	return s.report, s.err
}

// leaving orders objects: superseded ones by when that happened, then the others by age.
func leaving(a, b generation) int {
	if a.newer.IsZero() != b.newer.IsZero() {
		if a.newer.IsZero() {
			return 1
		}
		return -1
	}
	return cmp.Or(a.newer.Compare(b.newer), a.ModTime.Compare(b.ModTime), cmp.Compare(a.Name, b.Name))
}

// generations lists all objects; foreign is how many others there are.
func (t *Tier) generations(ctx context.Context) (all []generation, foreign int, err error) {
	of := map[digest.Digest][]int{} // places in all
	list := func(e Entry) error {
		d, number, ok := t.names.parse(e.Name)
		if _, whole := blobSize(e.Size); !ok || !whole {
			foreign++
			return nil
		}
		of[d] = append(of[d], len(all))
		all = append(all, generation{Entry: e, number: number})
		return nil
	}
	err = watched(ctx, t.timeout, func(w *stall.Watch) error {
		return t.store.List(w.Context(), t.Folder(), func(e Entry) error {
			w.Start()
			return list(e)
		})
	})
	for _, places := range of {
		if len(places) == 1 {
			continue
		}
		slices.SortFunc(places, func(a, b int) int { return cmp.Compare(all[a].number, all[b].number) })
		for i, place := range places[1:] {
			all[places[i]].newer = all[place].ModTime
		}
	}
	return all, foreign, err
}

// sweep is one Sweep under way.
type sweep struct {
	tier   *Tier
	report SweepReport
	err    error
	silent bool // the store is
}

// remove removes an object and counts it.
func (s *sweep) remove(ctx context.Context, g generation, as *Removed) {
	if s.silent {
		return
	}
	if ctx.Err() != nil {
		s.err = cmp.Or(s.err, context.Cause(ctx))
		return
	}
	err := watched(ctx, s.tier.timeout, func(w *stall.Watch) error { return s.tier.store.Remove(w.Context(), g.Name) })
	if err != nil {
		s.silent = errors.Is(err, ErrSilent)
		s.err = cmp.Or(s.err, fmt.Errorf("removing %s from the shared tier: %w", g.Name, err))
		return
	}
	as.Count++
	as.Bytes += g.Size
	s.report.Objects--
	s.report.Bytes -= g.Size
}

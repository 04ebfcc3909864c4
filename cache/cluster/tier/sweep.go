package tier

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
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
// the oldest objects. It goes on after an error where it can, and returns the first.
// Ages are by this machine's clock and the store's, which must agree within Grace.
// Several replicas may sweep at once: they choose the same. A Sweep has some 200 bytes
// of memory for each object.
func (t *Tier) Sweep(ctx context.Context, cfg SweepConfig) (report SweepReport, err error) {
	if cfg.Grace == 0 {
		cfg.Grace = time.Hour
	}
	before := time.Now().Add(-cfg.Grace)
	if tidier, ok := t.store.(Tidier); ok {
		if report.Leftover, err = tidier.Tidy(ctx, before); err != nil {
			err = fmt.Errorf("tidying up the shared tier: %w", err)
		}
	}
	all, foreign, listErr := t.generations(ctx)
	if listErr != nil {
		return report, cmp.Or(err, fmt.Errorf("listing the shared tier: %w", listErr))
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
	err = t.store.List(ctx, version, func(e Entry) error {
		d, number, ok := parseName(e.Name)
		if _, whole := blobSize(e.Size); !ok || !whole {
			foreign++
			return nil
		}
		of[d] = append(of[d], len(all))
		all = append(all, generation{Entry: e, number: number})
		return nil
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
}

// remove removes an object and counts it.
func (s *sweep) remove(ctx context.Context, g generation, as *Removed) {
	if ctx.Err() != nil {
		s.err = cmp.Or(s.err, context.Cause(ctx))
		return
	}
	if err := s.tier.store.Remove(ctx, g.Name); err != nil {
		s.err = cmp.Or(s.err, fmt.Errorf("removing %s from the shared tier: %w", g.Name, err))
		return
	}
	as.Count++
	as.Bytes += g.Size
	s.report.Objects--
	s.report.Bytes -= g.Size
}

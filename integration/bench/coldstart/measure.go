package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/reprise-containers/reprise/integration/coldstart"
	"github.com/reprise-containers/reprise/integration/coldstart/report"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/sandbox/link"
)

// bench is a benchmark that runs.
type bench struct {
	choice
	n      *node.Node
	cache  string // folder of images
	report report.Report
}

func (b *bench) measure(ctx context.Context) error {
	for _, s := range b.images {
		subject, err := b.prepare(ctx, s)
		if err != nil {
			return fmt.Errorf("preparing image %s: %w", s.Name, err)
		}
		for _, line := range b.lines {
			if err := b.overLine(ctx, subject, line); err != nil {
				return fmt.Errorf("starting %s over %s: %w", s.Name, line, err)
			}
		}
		if err := b.release(ctx, subject); err != nil {
			return err
		}
	}
	return nil
}

// overLine measures an image's starts over a line.
func (b *bench) overLine(ctx context.Context, s *subject, line link.Line) error {
	if err := coldstart.Forget(ctx, b.n, nil); err != nil {
		return err
	}
	if err := b.n.SetLine(ctx, &line); err != nil {
		return err
	}
	goodput, err := coldstart.Goodput(ctx, b.n, s.ordinary(), s.largest)
	if err != nil {
		return err
	}
	say("%s over %s: one large GET gets %.2f MB/s", s.Name, line, goodput/1e6)
	for round := range b.runs {
		for _, v := range b.variants {
			if round > 0 && v.once {
				continue
			}
			if err := b.cold(ctx, s, line, v); err != nil {
				return fmt.Errorf("variant %s: %w", v.name, err)
			}
		}
	}
	if b.pairs == 0 {
		return nil
	}
	warm, err := b.warm(ctx, s, line)
	if err != nil {
		return fmt.Errorf("warm: %w", err)
	}
	b.report.Floors = append(b.report.Floors, report.Floor{
		Image: s.Name, Line: line.String(), Bytes: s.least, Goodput: goodput, Warm: warm,
	})
	return nil
}

// cold measures one start of a node that has nothing.
func (b *bench) cold(ctx context.Context, s *subject, line link.Line, v variant) error {
	if err := coldstart.Forget(ctx, b.n, v.config); err != nil {
		return err
	}
	start, err := b.timed(ctx, s, v)
	if err != nil {
		return err
	}
	b.add(s, line, v.name, start)
	return nil
}

// warm measures starts with everything cached, but the image itself: it is
// pulled each time. Starts with and without a trace take turns. It returns the
// seconds that one without a trace takes.
func (b *bench) warm(ctx context.Context, s *subject, line link.Line) (float64, error) {
	if err := coldstart.Forget(ctx, b.n, nil); err != nil {
		return 0, err
	}
	kinds := []variant{ // the one that fills the cache faster is first
		{name: report.WarmTrace, image: (*subject).traced, start: coldstart.Lazy},
		{name: report.Warm, image: (*subject).lazy, start: coldstart.Lazy},
	}
	var took []float64
	for round := range b.pairs + 1 {
		for _, v := range kinds {
			if err := b.n.Containerd.RemoveImages(ctx); err != nil {
				return 0, err
			}
			start, err := b.timed(ctx, s, v)
			if err != nil {
				return 0, err
			}
			if round == 0 {
				continue // it fills the cache
			}
			b.add(s, line, v.name, start)
			if v.name == report.Warm {
				took = append(took, start.Ready().Seconds())
			}
		}
		slices.Reverse(kinds) // so that neither gains by being the second one
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// timed starts an image and, if that is wanted, prints what was noted meanwhile.
func (b *bench) timed(ctx context.Context, s *subject, v variant) (coldstart.Start, error) {
	t, err := newTimeline(b.n)
	if err != nil {
		return coldstart.Start{}, err
	}
	start, err := v.start(ctx, b.n, v.image(s))
	if err == nil && start.Stdout != s.stdout {
		err = fmt.Errorf("it printed %q, on a plain loop device %q", start.Stdout, s.stdout)
	}
	if err == nil && b.verbose {
		err = t.print(ctx, b.n, start)
	}
	return start, err
}

// add reports a start.
func (b *bench) add(s *subject, line link.Line, variant string, start coldstart.Start) {
	r := report.Run{
		Image: s.Name, Line: line.String(), Variant: variant,
		Pull: start.Pull.Seconds(), Ready: start.Ready().Seconds(),
		Bytes: start.Stats.Bytes, Requests: start.Stats.Requests,
		Asked: start.Reads.Asked, Missed: start.Reads.Missed,
	}
	b.report.Runs = append(b.report.Runs, r)
	say("%s over %s, %s: pull %.2f s, ready %.2f s, %.2f MB, %d requests, %.0f of %.0f reads missed", s.Name, line, variant,
		r.Pull, r.Ready, float64(r.Bytes)/1e6, r.Requests, r.Missed, r.Asked)
}

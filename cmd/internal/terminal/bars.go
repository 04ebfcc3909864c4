package terminal

import (
	"fmt"
	"io"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

const (
	lineWidth = 100 // columns, where no terminal says it
	barWidth  = 24
	nameWidth = 28
)

// Bars are progress bars, one a line. A nil *Bars shows nothing.
type Bars struct {
	progress *mpb.Progress

	mu   sync.Mutex
	open map[*Bar]struct{}
}

// Bar is the progress of one of several things that go on at the same time,
// each in phases. Its methods may be called in parallel and do nothing on nil.
type Bar struct {
	bars *Bars
	bar  *mpb.Bar

	mu    sync.Mutex
	phase string
	total int64
}

// WithBars runs work and shows the bars that it adds on w, a terminal. They stay
// when it returns. A nil w shows nothing.
func WithBars(w io.Writer, work func(*Bars) error) error {
	if w == nil {
		return work(nil)
	}
	options := []mpb.ContainerOption{mpb.WithOutput(w), mpb.WithWidth(lineWidth), mpb.WithRefreshRate(interval)}
	if !Is(w) {
		options = append(options, mpb.ForceAutoRefresh())
	}
	b := &Bars{progress: mpb.New(options...), open: map[*Bar]struct{}{}}
	defer b.progress.Wait()
	defer b.abort()
	return work(b)
}

// abort ends the bars that are not done, so that nobody waits for them.
func (b *Bars) abort() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for bar := range b.open {
		bar.bar.Abort(false)
	}
	b.open = map[*Bar]struct{}{}
}

// Add shows one more bar.
func (b *Bars) Add(name string) *Bar {
	if b == nil {
		return nil
	}
	bar := &Bar{bars: b}
	bar.bar = b.progress.New(0, mpb.BarStyle(), mpb.BarWidth(barWidth),
		mpb.PrependDecorators(decor.Name(name, decor.WC{W: nameWidth, C: decor.DindentRight})),
		mpb.AppendDecorators(decor.Any(bar.text)))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[bar] = struct{}{}
	return bar
}

// text is what stands behind the bar.
func (b *Bar) text(s decor.Statistics) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case s.Completed || b.total == 0 && s.Current == 0:
		return " " + b.phase
	case b.total == 0:
		return fmt.Sprintf(" %s %s", b.phase, Bytes(s.Current))
	}
	return fmt.Sprintf(" %s %s of %s", b.phase, Bytes(s.Current), Bytes(b.total))
}

// Phase begins something new that has total bytes; 0 if nobody knows.
func (b *Bar) Phase(name string, total int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.phase, b.total = name, total
	b.mu.Unlock()
	b.bar.SetTotal(total, false)
	b.bar.SetCurrent(0)
}

// Add counts n more bytes of the phase.
func (b *Bar) Add(n int64) {
	if b != nil {
		b.bar.IncrInt64(n)
	}
}

// Set counts n bytes of the phase in all.
func (b *Bar) Set(n int64) {
	if b != nil {
		b.bar.SetCurrent(n)
	}
}

// Done ends the bar, which goes on to show how.
func (b *Bar) Done(outcome string) {
	if b == nil {
		return
	}
	b.bars.mu.Lock()
	delete(b.bars.open, b)
	b.bars.mu.Unlock()
	b.mu.Lock()
	b.phase = outcome
	b.mu.Unlock()
	b.bar.SetTotal(-1, true)
}

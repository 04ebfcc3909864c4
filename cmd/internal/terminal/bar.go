package terminal

import (
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// WithBar runs work and, meanwhile, shows on w, a terminal, one bar with a text behind
// it, as state returns them: how much of how much is done, where 0 means that nobody
// knows. The bar stays when it returns. state is called from another goroutine than
// work.
func WithBar(w io.Writer, state func() (current, total int64, text string), work func() error) error {
	options := []mpb.ContainerOption{mpb.WithOutput(w), mpb.WithWidth(lineWidth), mpb.WithRefreshRate(interval)}
	if !Is(w) {
		options = append(options, mpb.ForceAutoRefresh())
	}
	progress := mpb.New(options...)
	var mu sync.Mutex
	var behind string
	bar := progress.New(0, mpb.BarStyle(), mpb.BarWidth(barWidth), mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
		mu.Lock()
		defer mu.Unlock()
		return " " + behind
	})))
	show := func() {
		current, total, text := state()
		mu.Lock()
		behind = text
		mu.Unlock()
		bar.SetTotal(total, false)
		bar.SetCurrent(current)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			show()
			select {
			case <-done:
				show()
				bar.Abort(false) // it may not be full
				return
			case <-tick.C:
			}
		}
	})
	defer progress.Wait()
	defer wg.Wait()
	defer close(done)
	return work()
}

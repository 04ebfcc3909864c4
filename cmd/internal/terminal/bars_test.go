package terminal_test

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

// locked is a buffer that may be written in parallel.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func TestBars(t *testing.T) {
	var out locked
	want := errors.New("work")
	err := terminal.WithBars(&out, func(b *terminal.Bars) error {
		var wg sync.WaitGroup
		for _, name := range []string{"one", "two"} {
			wg.Go(func() {
				bar := b.Add(name)
				bar.Phase("reading", 4096)
				bar.Add(1024)
				bar.Phase("writing", 0)
				bar.Set(10)
				bar.Done("ready " + name)
			})
		}
		wg.Wait()
		b.Add("stuck").Phase("waiting", 1) // must not be waited for
		return want
	})
	if !errors.Is(err, want) {
		t.Errorf("error of the work: %v", err)
	}
	for _, part := range []string{"one", "ready two", "stuck"} {
		if !strings.Contains(out.b.String(), part) {
			t.Errorf("drew %q, without %q", out.b.String(), part)
		}
	}
}

func TestNoBars(t *testing.T) {
	err := terminal.WithBars(nil, func(b *terminal.Bars) error {
		bar := b.Add("x")
		bar.Phase("y", 1)
		bar.Add(1)
		bar.Set(2)
		bar.Done("z")
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

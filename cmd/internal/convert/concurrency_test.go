package convert_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/convert"
	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
)

// slow is a layout that takes a layer only when it is told to.
type slow struct {
	*destination.Layout
	storing atomic.Int64
	take    chan struct{}
}

func (s *slow) Put(ctx context.Context, desc ocispec.Descriptor, c destination.Content) error {
	if desc.MediaType == ocispec.MediaTypeImageLayer {
		s.storing.Add(1)
		defer s.storing.Add(-1)
		select {
		case <-s.take:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.Layout.Put(ctx, desc, c)
}

// unnamed counts the open files below dir, which have no names.
func unnamed(t *testing.T, dir string) (n int) {
	t.Helper()
	for _, name := range entries(t, "/proc/self/fd") {
		if to, err := os.Readlink(filepath.Join("/proc/self/fd", name)); err == nil && strings.HasPrefix(to, dir) {
			n++
		}
	}
	return n
}

// TestConcurrency looks at what a conversion holds when it can't go on.
func TestConcurrency(t *testing.T) {
	var layers []layer
	for i := range 6 {
		layers = append(layers, gzipLayer(archive(map[string]int{"file": 50_000 + i})))
	}
	from := single(t, layers...)
	for _, most := range []int{1, 2, 3, 10} {
		cfg := config(t)
		cfg.Concurrency = most
		to := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			l, err := destination.NewLayout(to, "1")
			if err != nil {
				t.Fatal(err)
			}
			s := &slow{Layout: l, take: make(chan struct{})}
			cfg.Source, cfg.Destination = content(t, from, source.Config{}), s
			done := make(chan error, 1)
			go func() {
				_, err := convert.Run(t.Context(), cfg)
				done <- err
			}()
			for left := len(layers); left > 0; left-- {
				synctest.Wait()
				// Each layer is compressed, so it has one file; the last one is
				// the chain's, while there are layers to come.
				want := min(most, left)
				files := unnamed(t, cfg.TempDir)
				if got := int(s.storing.Load()); got != want || files < want || files > want+1 {
					t.Errorf("concurrency %d, %d layers left: %d are being stored, %d files", most, left, got, files)
				}
				s.take <- struct{}{}
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
		opens(t, to+":1", len(layers))
	}
}

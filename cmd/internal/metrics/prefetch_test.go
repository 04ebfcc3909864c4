package metrics_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/metrics"
	"github.com/reprise-containers/reprise/tracelayer/replay"
)

func TestPrefetch(t *testing.T) {
	m := metrics.New()
	p := m.Prefetch([]string{"replayed", "invalid"})
	p.Prefetched(4096)
	p.Prefetched(1000)
	p.Used(4096, 20*time.Millisecond)
	p.Missed(512)
	p.Skipped(replay.SkippedPresent, 100)
	p.Skipped(replay.SkippedCorrupt, 7)
	p.Image("replayed")
	_, text := get(t, m.Handler(func(context.Context) error { return nil }), "/metrics")
	for _, want := range []string{
		`reprise_prefetch_extents_total 2`,
		`reprise_prefetch_bytes_total 5096`,
		`reprise_prefetch_used_extents_total 1`,
		`reprise_prefetch_used_bytes_total 4096`,
		`reprise_prefetch_missed_extents_total 1`,
		`reprise_prefetch_missed_bytes_total 512`,
		`reprise_prefetch_skipped_bytes_total{reason="present"} 100`,
		`reprise_prefetch_skipped_extents_total{reason="corrupt"} 1`,
		`reprise_prefetch_skipped_extents_total{reason="failed"} 0`,
		`reprise_prefetch_ahead_seconds_count 1`,
		`reprise_prefetch_images_total{outcome="replayed"} 1`,
		`reprise_prefetch_images_total{outcome="invalid"} 0`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

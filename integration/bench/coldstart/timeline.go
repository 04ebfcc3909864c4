package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/reprise-containers/reprise/integration/coldstart"
	"github.com/reprise-containers/reprise/integration/node"
)

// timeline prints what the daemon of a node noted of a start that has just ended,
// by the time since the pull began.
type timeline struct {
	log  string
	from int64 // offset in the log
}

func newTimeline(n *node.Node) (timeline, error) {
	t := timeline{log: n.Path("log", "snapshotter.log")}
	st, err := os.Stat(t.log)
	if err == nil {
		t.from = st.Size()
	}
	return t, err
}

func (t timeline) print(ctx context.Context, n *node.Node, s coldstart.Start) error {
	f, err := os.Open(t.log)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(t.from, io.SeekStart); err != nil {
		return err
	}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// time="2026-11-27T07:32:34.4Z" level=info msg="..."
		stamp, text, found := strings.Cut(strings.TrimPrefix(lines.Text(), `time="`), `" `)
		when, err := time.Parse(time.RFC3339Nano, stamp)
		if found && err == nil {
			say("  %7.3f s: %.300s", when.Sub(s.Begin).Seconds(), text)
		}
	}
	say("  %7.3f s: pulled", s.Pull.Seconds())
	say("  %7.3f s: first output", s.Ready().Seconds())
	for _, digest := range slices.Sorted(maps.Keys(s.Stats.Blobs)) {
		b := s.Stats.Blobs[digest]
		say("  %s: %d requests, %.3f MB", digest, b.Requests, float64(b.Bytes)/1e6)
	}
	return prefetchMetrics(ctx, n)
}

// prefetchMetrics prints what came of fetching ahead.
func prefetchMetrics(ctx context.Context, n *node.Node) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Snapshotter.Metrics+"/metrics", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("reading metrics: %w", err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		text := lines.Text()
		if (strings.HasPrefix(text, "reprise_prefetch") || strings.HasPrefix(text, "reprise_read_")) &&
			!strings.Contains(text, "_bucket") && !strings.HasSuffix(text, " 0") {
			say("  %s", text)
		}
	}
	return lines.Err()
}

package readahead_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/reprise-containers/reprise/backstore/readahead"
	"github.com/reprise-containers/reprise/remote/blob"
)

// TestStarts replays the reads of recorded container starts, page by page, one
// after the other, on a device behind a line of which a request takes a time and
// so does each byte, and prints what the policies make of them. Time is virtual.
//
//	run start=node request=3500us rate=25
//
// The rate is in Mbit/s; a page has storedPage bytes on the line, the mean of what
// these starts read. The recordings are of erofs behind a loop device without
// readahead; each number is the distance in pages from the read before.
func TestStarts(t *testing.T) {
	datadriven.RunTest(t, "testdata/starts", func(t *testing.T, d *datadriven.TestData) string {
		var start, request string
		var rate int
		d.ScanArgs(t, "start", &start)
		d.ScanArgs(t, "request", &request)
		d.ScanArgs(t, "rate", &rate)
		wait, err := time.ParseDuration(request)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		reads := recorded(t, start)
		var out strings.Builder
		for _, policy := range []string{readahead.Off, readahead.Sequential, readahead.Expand} {
			cfg := readahead.DefaultConfig
			cfg.Policy = policy
			l := &distant{origin: newOrigin(64 << 30), request: wait, perPage: time.Duration(storedPage * 8 * 1000 / rate)}
			var took time.Duration
			var stats readahead.Stats
			synctest.Test(t, func(t *testing.T) { took, stats = replay(t, l, cfg, reads) })
			fmt.Fprintf(&out, "%-10s %6.1f s, %4d requests, %4.1f MB", policy, took.Seconds(), l.requests, float64(l.fetched()/page*storedPage)/1e6)
			if stats.Ahead > 0 {
				fmt.Fprintf(&out, ", %d%% of what was read ahead used", 100*stats.Used/stats.Ahead)
			}
			out.WriteByte('\n')
		}
		return out.String()
	})
}

const (
	storedPage = 1600 // bytes
	think      = 200 * time.Microsecond
)

// replay runs reads against a device with readahead and returns how long they took.
func replay(t *testing.T, l *distant, cfg readahead.Config, reads []int64) (time.Duration, readahead.Stats) {
	t.Helper()
	l.line = make(chan struct{}, 1) // of this bubble
	l.line <- struct{}{}
	var counters readahead.Counters
	d := readahead.NewShared(l, cfg, readahead.Shared{Quiet: l.quiet, Counters: &counters})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = d.Run(ctx) })
	begin := time.Now()
	p := make([]byte, page)
	for _, r := range reads {
		if _, err := d.ReadAt(ctx, p, r*page); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		time.Sleep(think)
	}
	took := time.Since(begin)
	cancel()
	wg.Wait()
	return took, counters.Stats()
}

// distant is an origin behind a line that takes time, one read's bytes after the
// other's.
type distant struct {
	*origin
	request, perPage time.Duration

	line    chan struct{} // holds a token; whose bytes are on the line has it
	state   sync.Mutex
	waiting int // demand reads
}

func (l *distant) quiet() time.Duration {
	l.state.Lock()
	defer l.state.Unlock()
	if l.waiting > 0 {
		return 0
	}
	return time.Hour
}

func (l *distant) wait(n int) {
	l.state.Lock()
	defer l.state.Unlock()
	l.waiting += n
}

func (l *distant) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if l.Present(off, int64(len(p))) {
		return l.origin.ReadAt(ctx, p, off)
	}
	if blob.PriorityOf(ctx) == blob.Demand {
		l.wait(1)
		defer l.wait(-1)
	}
	request := l.request
	if blob.PriorityOf(ctx) == blob.Background {
		request += 333 * time.Nanosecond // never at the same time as another
	}
	time.Sleep(request)
	<-l.line
	defer func() { l.line <- struct{}{} }()
	time.Sleep(l.perPage * time.Duration(len(p)/page))
	return l.origin.ReadAt(ctx, p, off)
}

// recorded returns the pages that a start reads.
func recorded(t *testing.T, start string) (pages []int64) {
	t.Helper()
	f, err := os.Open("testdata/" + start + ".reads.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	at := int64(0)
	for lines := bufio.NewScanner(z); lines.Scan(); {
		n, err := strconv.ParseInt(strings.TrimSpace(lines.Text()), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		at += n
		pages = append(pages, at)
	}
	return pages
}

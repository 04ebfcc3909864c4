package lab_test

import (
	"io"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/chain/lab"
	"github.com/reprise-containers/reprise/remote/registry"
)

// slack is bytes that are counted as in flight and are none of the window: heads
// of answers, and packets that were put together better than those before.
const slack = 8 << 10

// What a stream that nobody reads has in flight stays within its window, whatever
// packets are like, and it is not so much less that the line is not filled. A busy
// machine puts packets together now better and now worse, which the window is told
// of only when that has happened: it may be off now and then, but not by much.
func TestWindow(t *testing.T) {
	image, err := lab.NewImage(48<<20, 1)
	if err != nil {
		t.Fatal(err)
	}
	for name, roundTrip := range map[string]time.Duration{"packets put together": 0, "single packets": 10 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			r := world(t, 100e6/8, roundTrip, image)
			client := new(lab.Client)
			reg, err := registry.New(registry.Config{DockerConfig: t.TempDir() + "/none.json", DialContext: client.Dial, PlainHTTP: []string{r.Host}})
			if err != nil {
				t.Fatal(err)
			}
			defer reg.Close()
			s, err := reg.Stream(t.Context(), r.Host+"/app:1", image.Layer, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for _, window := range []int{64 << 10, 256 << 10, 1 << 20, 128 << 10} {
				s.SetWindow(window)
				off := 0
				for range 5 {
					if _, err := io.CopyN(io.Discard, s, int64(max(4*window, 1<<20))); err != nil {
						t.Fatal(err)
					}
					time.Sleep(300 * time.Millisecond) // until nothing comes any more
					n, err := client.InFlight(r)
					if err != nil {
						t.Fatal(err)
					}
					t.Logf("window of %d KiB, %d in flight", window>>10, n>>10)
					if n > int64(window)+slack || n < int64(window)/2 {
						off++
					}
					if n > int64(window)*3/2+slack {
						t.Errorf("%d bytes of a window of %d are in flight", n, window)
					}
				}
				if off > 2 {
					t.Errorf("%d times of 5 what is in flight is not a window of %d", off, window)
				}
			}
		})
	}
}

// While a replay has the line, a read that has nothing to do with it finds no more
// in flight than 64 KiB, or about one round trip's worth if that is more.
func TestInFlight(t *testing.T) {
	const rate = 25e6 / 8
	image, err := lab.NewImage(20<<20, 0.8)
	if err != nil {
		t.Fatal(err)
	}
	other := withOther(t, image, 4<<20)
	for name, roundTrip := range map[string]time.Duration{"near": 0, "far": 40 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			r := world(t, rate, roundTrip, image)
			n := newNode(t, r, image, other)
			done := make(chan struct{})
			go func() {
				defer close(done)
				if _, err := n.replay(t.Context()); err != nil {
					t.Error(err)
				}
			}()
			time.Sleep(2500 * time.Millisecond) // it has measured the line by then
			reads := n.unrelated(t, 50, done)
			<-done
			for i, one := range reads {
				if one.inFlight > one.window+slack {
					t.Errorf("read %d: %d bytes in flight, with a window of at most %d so far", i, one.inFlight, one.window)
				}
			}
			// A window is a seventh more than one round trip carries, and may be
			// twice that while it is found out whether the line carries more.
			// Round trips take longer on a busy machine.
			line := n.chain.Line(n.ref())
			most := int(max(64<<10, 2*1.15*rate*max(roundTrip, line.RoundTrip).Seconds()))
			if line.Window > most || len(reads) == 0 {
				t.Errorf("after %d reads: %+v, want a window of at most %d", len(reads), line, most)
			}
			t.Logf("%d KiB in flight at most, reads took %.1f ms, %.1f at p99", mostInFlight(reads)>>10, quantile(reads, 0.5), quantile(reads, 0.99))
		})
	}
}

package lab_test

import (
	"io"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/chain/lab"
	"github.com/reprise-containers/reprise/remote/registry"
)

const (
	// looks is how often a window is looked at, with twice of it read in between, and
	// steady how often in a row what is in flight must be as it should. The kernel
	// bounds the memory that packets take: one look may find more when they were put
	// together better than those before, and less when worse, which differs a lot on
	// a busy machine, and a window gets smaller step by step.
	looks, steady = 24, 3
	// still is how often in a row nothing may have come before nothing will.
	still = 5
)

// within returns how many bytes may be in flight in a window: there are heads of
// answers, too, and packets of no fixed weight.
func within(window int64) int64 { return window + window/8 }

// TestWindow has a stream that nobody reads: what it has in flight comes to be
// within its window and stays there, whatever packets are like, and it is not so
// much less that the line is not filled.
func TestWindow(t *testing.T) {
	image, err := lab.NewImage(72<<20, 1)
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
			for _, window := range []int64{64 << 10, 256 << 10, 1 << 20, 128 << 10} {
				s.SetWindow(int(window))
				var seen []int64
				for held := 0; held < steady && len(seen) < looks; {
					if _, err := io.CopyN(io.Discard, s, 2*window); err != nil {
						t.Fatal(err)
					}
					n := settled(t, client, r)
					seen = append(seen, n)
					if held++; n > within(window) || n < window/2 {
						held = 0
					}
					if held == steady {
						t.Logf("of a window of %d bytes, in flight are %d", window, seen)
					} else if len(seen) == looks {
						t.Errorf("of a window of %d bytes, in flight are %d, time after time", window, seen)
					}
				}
			}
		})
	}
}

// settled returns how many bytes are in flight once no more come.
func settled(t *testing.T, client *lab.Client, r *lab.Registry) int64 {
	t.Helper()
	last := int64(-1)
	for same := 0; same < still; time.Sleep(20 * time.Millisecond) {
		n, err := client.InFlight(r)
		if err != nil {
			t.Fatal(err)
		}
		if same++; n != last {
			last, same = n, 0
		}
	}
	return last
}

// TestInFlight has a replay use the line: reads that have nothing to do with it find
// no more in flight than 64 KiB, or about one round trip's worth if that is more, but
// for one in ten of them: see TestWindow.
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
			var over int
			var longest time.Duration
			for _, one := range reads {
				longest = max(longest, one.roundTrip)
				if one.inFlight > within(one.window) {
					over++
				}
			}
			if over > len(reads)/10 {
				t.Errorf("%d of %d reads found more in flight than the largest window so far: %+v", over, len(reads), reads)
			}
			// A window is a seventh more than one round trip carries, and may be
			// twice that while it is found out whether the line carries more.
			// Round trips take longer on a busy machine.
			line := n.chain.Line(n.ref())
			most := int(max(64<<10, 2*1.15*rate*max(roundTrip, longest, line.RoundTrip).Seconds()))
			if line.Window > most || len(reads) == 0 {
				t.Errorf("after %d reads: %+v, want a window of at most %d", len(reads), line, most)
			}
			t.Logf("%d KiB in flight at most, reads took %.1f ms, %.1f at p99", mostInFlight(reads)>>10, quantile(reads, 0.5), quantile(reads, 0.99))
		})
	}
}

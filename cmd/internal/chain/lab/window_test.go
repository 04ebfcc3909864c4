package lab_test

import (
	"io"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/chain/lab"
	"github.com/reprise-containers/reprise/remote/registry"
)

// What a stream that nobody reads has in flight stays within its window, whatever
// packets are like, and it is not so much less that the line is not filled.
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
				for range 4 {
					if _, err := io.CopyN(io.Discard, s, int64(max(4*window, 1<<20))); err != nil {
						t.Fatal(err)
					}
					time.Sleep(300 * time.Millisecond) // until nothing comes any more
					n, err := client.InFlight(r)
					if err != nil {
						t.Fatal(err)
					}
					t.Logf("%s: window %d KiB, %d KiB in flight, %d unread", name, window>>10, n>>10, s.Unread()>>10)
				}
			}
		})
	}
}

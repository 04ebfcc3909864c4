package replayer_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cmd/internal/replayconfig"
	"github.com/reprise-containers/reprise/cmd/internal/replayer"
)

// simulated returns what a simulation of a trace prints.
func simulated(t *testing.T, text string, c func(*replayconfig.Config)) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trace")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := replayconfig.Default()
	cfg.Trace.Traces = []string{path}
	cfg.Simulate.Policies, cfg.Simulate.Sizes, cfg.Simulate.Curve.Exact = []string{"lru"}, []string{"100%"}, false
	c(&cfg)
	var out bytes.Buffer
	err := (&replayer.Replayer{Config: cfg, Out: &out}).Simulate(t.Context())
	return out.String(), err
}

// What is larger than asked for is taken for as large as that.
func TestMaxSize(t *testing.T) {
	const text = `{"http.request.method":"GET","http.request.uri":"v2/a/blobs/x","http.response.written":3000000}
{"http.request.method":"GET","http.request.uri":"v2/a/blobs/y","http.response.written":10,"http.request.range":"bytes=5000000-5000009"}
`
	for most, want := range map[replayconfig.Size]string{0: "7.629MiB", 1 << 20: "2MiB"} {
		out, err := simulated(t, text, func(c *replayconfig.Config) { c.Trace.MaxSize = most })
		if err != nil || !strings.Contains(out, "2 requests of 2 objects, "+want) {
			t.Errorf("no larger than %d: %v, want %s\n%s", most, err, want, out)
		}
	}
}

// Seconds of a trace without times are not silently all of it.
func TestLimitWithoutTimes(t *testing.T) {
	_, err := simulated(t, "v2/a/blobs/x\nv2/a/blobs/x\n", func(c *replayconfig.Config) {
		c.Simulate.Unit = true
		c.Trace.Limit = &replayconfig.Limit{Type: "seconds", Amount: 5}
	})
	if err == nil || !strings.Contains(err.Error(), "trace.limit") {
		t.Errorf("%v", err)
	}
}

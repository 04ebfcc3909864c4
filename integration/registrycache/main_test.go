package registrycache_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/integration/registrycache/instance"
	"github.com/reprise-containers/reprise/integration/registrycache/origin"
	"github.com/reprise-containers/reprise/integration/registrycache/swarm"
)

// programDir is where the program under trial is built, once.
var programDir string

var program = sync.OnceValues(func() (string, error) {
	return instance.Build(context.Background(), "../..", programDir)
})

func TestMain(m *testing.M) {
	code := func() int {
		var err error
		if programDir, err = os.MkdirTemp("", "reprise-trial-"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(programDir)
		return m.Run()
	}()
	os.Exit(code)
}

// full reports whether the sizes of the issue are to be used, not those that
// suit a test that is run often.
func full() bool { return os.Getenv("TRIAL") == "full" }

// patience bounds every test: what takes so long hangs.
const patience = 2 * time.Minute

// trial is an upstream for the time of a test.
type trial struct {
	t   *testing.T
	ctx context.Context
	up  *origin.Origin
}

// newTrial starts an upstream. Nothing may take longer than limit.
func newTrial(t *testing.T, limit time.Duration) trial {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	up, err := origin.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { up.Close() })
	return trial{t, ctx, up}
}

// rig is a cache before an upstream.
type rig struct {
	trial
	cache *instance.Instance
}

// values is short for a level of a configuration.
type values = instance.Values

// begin starts an upstream and a cache whose default upstream it is, with values
// laid over the configuration. When the test ends the cache must end in peace,
// and nothing secret may be in what it wrote.
func begin(t *testing.T, over values) *rig {
	t.Helper()
	return beginWith(t, instance.Config{Values: over})
}

func beginWith(t *testing.T, c instance.Config) *rig {
	t.Helper()
	r := &rig{trial: newTrial(t, patience)}
	c.Upstream = r.up.Address
	r.cache = startCache(r.ctx, t, c)
	t.Cleanup(func() { nothingSecret(t, r.cache, r.up.Secrets()) })
	return r
}

// startCache starts a cache that is stopped at the end of the test.
func startCache(ctx context.Context, t *testing.T, c instance.Config) *instance.Instance {
	t.Helper()
	i := newCache(t, c)
	if err := i.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return i
}

// newCache is startCache without the start.
func newCache(t *testing.T, c instance.Config) *instance.Instance {
	t.Helper()
	var err error
	if c.Program == "" {
		if c.Program, err = program(); err != nil {
			t.Fatal(err)
		}
	}
	c.Dir = t.TempDir()
	i, err := instance.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Stop(); err != nil {
			t.Error(err)
		}
		if log := i.Log(); strings.Contains(log, "panic: ") || strings.Contains(log, "http: panic serving") || strings.Contains(log, "DATA RACE") {
			t.Errorf("it panicked:\n%s", log)
		}
		if t.Failed() {
			log := i.Log()
			t.Log(log[max(0, len(log)-16<<10):])
		}
	})
	return i
}

// nothingSecret looks for secrets in the log and all files of a cache.
func nothingSecret(t *testing.T, i *instance.Instance, secrets []string) {
	t.Helper()
	texts := map[string]string{"the log": i.Log()}
	files, err := i.Files()
	if err != nil {
		t.Error(err)
	}
	for name := range files {
		b, err := os.ReadFile(filepath.Join(i.Data, name))
		if err != nil && !os.IsNotExist(err) { // the cache goes on working
			t.Error(err)
		}
		texts[name] = string(b)
	}
	for where, text := range texts {
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("a secret that crossed the cache is in %s: %.12s...", where, s)
			}
		}
	}
}

// target is the cache for a client with an Authorization header.
func (r *rig) target(authorization string) swarm.Target {
	return swarm.Target{Base: "http://" + r.cache.Address, Authorization: authorization}
}

// pull reads a whole blob as one client and fails the test if it is not right.
func (r *rig) pull(as, repo string, c *origin.Content) {
	r.t.Helper()
	if _, err := r.target(as).Pull(r.ctx, swarm.Pull{Repo: repo, Digest: c.Digest, Want: c.Bytes()}); err != nil {
		r.t.Errorf("reading blob %s of %s: %v", c.Digest, repo, err)
	}
}

// refused reads a path and fails the test unless the status is one of those.
func (r *rig) refused(target swarm.Target, path string, header map[string]string, want ...int) {
	r.t.Helper()
	resp, body, err := target.Get(r.ctx, path, header)
	if err != nil {
		r.t.Errorf("reading %s: %v; want an answer with one of %v", path, err, want)
		return
	}
	for _, w := range want {
		if resp.StatusCode == w {
			return
		}
	}
	r.t.Errorf("reading %s: %s, %.200q; want one of %v", path, resp.Status, body, want)
}

// eventually waits until a condition holds or the test's patience ends.
func (r *trial) eventually(what string, holds func() bool) {
	r.t.Helper()
	for !holds() {
		select {
		case <-r.ctx.Done():
			r.t.Fatalf("it never was so: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

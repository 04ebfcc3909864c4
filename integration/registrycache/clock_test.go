package registrycache_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/integration/registrycache/instance"
	"github.com/reprise-containers/reprise/integration/registrycache/origin"
)

// jumps are what happens to the clock, one after the other, each by so much off
// the right time.
var jumps = []time.Duration{
	10 * 365 * 24 * time.Hour, 0, -40 * 365 * 24 * time.Hour, time.Hour, 0,
}

// TestClockJumps sets the clock of a running cache forth and back, collects,
// restarts and fills it over its limit at each: bytes stay right, the limit holds,
// and rights that are taken away stay so.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	skewed, err := instance.BuildSkewed(t.Context(), "../..", dir)
	if err != nil {
		t.Fatal(err)
	}
	clock, env, err := instance.NewClock(dir)
	if err != nil {
		t.Fatal(err)
	}
	const limit = 64 << 20
	r := beginWith(t, instance.Config{Program: skewed, Env: env, Values: values{
		"permission": values{"rangeTTL": "1s", "negativeTTL": "0s"},
		"gc": values{
			"interval": "1s", "disk": values{"maxSize": "64MiB", "minFree": "0B"},
			"layers": values{"maxAge": "2h", "maxUnused": "1h", "checkSHA": true},
		},
	}})
	r.up.Private(time.Hour, http.StatusForbidden)
	r.up.AddUser("alice", "alice's password")
	alice := r.up.Token("alice")
	var blobs []*origin.Content
	for i := range 9 {
		b := origin.Random(uint64(200+i), 8<<20)
		blobs = append(blobs, b)
		r.up.AddBlob("a/b", b)
	}
	for i, off := range jumps {
		if err := clock.Set(off); err != nil {
			t.Fatal(err)
		}
		// The jump is seen when what is logged, or stored, has its time; wait for
		// longer than the clock takes to be read.
		time.Sleep(100 * time.Millisecond)
		for _, b := range blobs {
			r.pull(alice, "a/b", b)
		}
		r.collect("gc")
		r.revoked(alice, blobs[len(blobs)-1])
		files, err := r.cache.Files()
		if err != nil {
			t.Fatal(err)
		}
		var sum int64
		for _, n := range files {
			sum += n
		}
		if sum > limit+1<<20 {
			t.Errorf("%v off: %d bytes on disk, the limit is %d", off, sum, limit)
		}
		if i%2 == 1 {
			r.restart()
		}
	}
	r.pull(alice, "a/b", blobs[0])
	r.up.Reset()
	r.pull(alice, "a/b", blobs[0])
	if c := r.up.Stats().Blobs[blobs[0].Digest]; c.Gets != 0 {
		t.Errorf("after all jumps a blob is not kept: %+v", c)
	}
}

// revoked takes alice's rights away for a while: no later than the time that a
// permission counts, by no clock that can be set, she gets nothing.
func (r *rig) revoked(alice string, b *origin.Content) {
	r.t.Helper()
	header := map[string]string{"Range": "bytes=0-99"}
	path := "a/b/blobs/" + b.Digest.String()
	r.refused(r.target(alice), path, header, http.StatusPartialContent)
	r.up.SetReaders("a/b", "nobody")
	r.refused(r.target(alice), path, nil, http.StatusForbidden)
	r.eventually("a permission for parts ends", func() bool {
		resp, _, err := r.target(alice).Get(r.ctx, path, header)
		return err == nil && resp.StatusCode == http.StatusForbidden
	})
	r.up.SetReaders("a/b", "alice")
}

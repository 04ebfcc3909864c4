package registrycache_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/integration/registrycache/origin"
	"github.com/reprise-containers/reprise/integration/registrycache/swarm"
)

// TestSlowWriters sends heads that do not end: the server ends them.
func TestSlowWriters(t *testing.T) {
	r := begin(t, values{"server": values{"timeout": "500ms"}})
	for name, request := range map[string]string{
		"nothing": "", "half a line": "GET /v2/a/b", "half a head": "GET /v2/ HTTP/1.1\r\nHost: x\r\nX-A: b\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", r.cache.Address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, request)
			conn.SetReadDeadline(time.Now().Add(patience)) //nolint:errcheck // then it waits for ever
			if _, err := io.ReadAll(conn); err != nil {
				t.Errorf("the server did not end it: %v", err)
			}
		})
	}
}

// TestSlowReaders has readers that take a little and then nothing more. They lose
// their connection, and the only streamer is free for the next.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	r := begin(t, values{"server": values{"timeout": "500ms", "streamers": 2}})
	blob := origin.Random(60, 64<<20)
	want := blob.Bytes()
	r.up.AddBlob("a/b", blob)
	r.pull("", "a/b", blob)
	for range 4 {
		conn, err := net.Dial("tcp", r.cache.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /v2/a/b/blobs/%s HTTP/1.1\r\nHost: x\r\n\r\n", blob.Digest)
	}
	if _, err := r.target("").Pull(r.ctx, swarm.Pull{Repo: "a/b", Digest: blob.Digest, Want: want, Retry: true}); err != nil {
		t.Errorf("beside readers that stopped: %v", err)
	}
	r.eventually("nobody streams any more", func() bool {
		fds, err := r.cache.Descriptors()
		return err == nil && countPrefix(fds, "socket:") < 12
	})
}

// TestSteadySlowReader takes longer than the limit for the whole, but never for a
// part: it is served to the end, and holds nobody else up.
func TestSteadySlowReader(t *testing.T) {
	t.Parallel()
	r := begin(t, values{"server": values{"timeout": "500ms", "upstreamTimeout": "500ms"}})
	blob := origin.Random(61, 24<<20)
	want := blob.Bytes()
	r.up.AddBlob("a/b", blob)
	slow := make(chan error, 1)
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	go func() {
		_, err := r.target("").Pull(ctx, swarm.Pull{Repo: "a/b", Digest: blob.Digest, Want: want, Rate: 8 << 20})
		slow <- err
	}()
	for range 5 {
		if _, err := r.target("").Pull(r.ctx, swarm.Pull{Repo: "a/b", Digest: blob.Digest, Want: want}); err != nil {
			t.Errorf("beside a slow reader: %v", err)
		}
	}
	if err := <-slow; err != nil {
		t.Errorf("a slow reader that reads on: %v", err)
	}
	if got := r.up.Stats().Blobs[blob.Digest]; got.Gets != 1 {
		t.Errorf("%d GETs upstream, want 1", got.Gets)
	}
}

// TestSlowUpstream has some blobs never come. Who wants others does not wait, and
// who wants these is told so.
func TestSlowUpstream(t *testing.T) {
	t.Parallel()
	r := begin(t, values{"server": values{"workers": 4, "upstreamTimeout": "1s"}})
	stuck, fine := origin.Random(62, 1<<20), origin.Random(63, 1<<20)
	r.up.AddBlob("a/b", stuck)
	r.up.AddBlob("a/b", fine)
	r.pull("", "a/b", fine)
	r.up.SetRule(func(q *http.Request) origin.Fault { return origin.Fault{Hang: isBlob(q, stuck)} })
	ended := make(chan error, 8)
	for range cap(ended) {
		go func() {
			_, err := r.target("").Pull(r.ctx, swarm.Pull{Repo: "a/b", Digest: stuck.Digest, Want: stuck.Bytes()})
			ended <- err
		}()
	}
	for range 5 {
		r.pull("", "a/b", fine)
	}
	for range cap(ended) {
		if err := <-ended; err == nil {
			t.Error("a blob that never came was read")
		}
	}
	r.up.SetRule(nil)
	r.up.Release()
	r.pull("", "a/b", stuck)
}

// TestWaitersAreNoWorkers has more waiters for one blob than there are workers,
// with the only worker busy with that blob.
func TestWaitersAreNoWorkers(t *testing.T) {
	r := begin(t, values{"server": values{"workers": 2}})
	held, other := origin.Random(64, 4<<20), origin.Random(65, 1<<20)
	r.up.AddBlob("a/b", held)
	r.up.AddBlob("a/b", other)
	r.up.SetRule(func(q *http.Request) origin.Fault {
		if isBlob(q, held) {
			return origin.Fault{HoldAt: 1 << 20}
		}
		return origin.Fault{}
	})
	ended := make(chan error, 30)
	for range cap(ended) {
		go func() {
			_, err := r.target("").Pull(r.ctx, swarm.Pull{Repo: "a/b", Digest: held.Digest, Want: held.Bytes()})
			ended <- err
		}()
	}
	r.eventually("the blob is being fetched", func() bool { return r.up.Stats().Blobs[held.Digest].Bytes >= 1<<20 })
	r.pull("", "a/b", other)
	r.up.SetRule(nil)
	r.up.Release()
	for range cap(ended) {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// TestTooManyStreams has all streamers busy: the next is told to come again.
func TestTooManyStreams(t *testing.T) {
	t.Parallel()
	r := begin(t, values{"server": values{"streamers": 2}})
	held, fine := origin.Random(66, 4<<20), origin.Random(67, 1<<20)
	r.up.AddBlob("a/b", held)
	r.up.AddBlob("a/b", fine)
	r.pull("", "a/b", fine)
	r.up.SetRule(func(q *http.Request) origin.Fault {
		if isBlob(q, held) {
			return origin.Fault{HoldAt: 1 << 20}
		}
		return origin.Fault{}
	})
	ended := make(chan error, 2)
	for range cap(ended) {
		go func() {
			_, err := r.target("").Pull(r.ctx, swarm.Pull{Repo: "a/b", Digest: held.Digest, Want: held.Bytes()})
			ended <- err
		}()
	}
	r.eventually("two streams are open", func() bool {
		resp, _, err := r.target("").Get(r.ctx, "a/b/blobs/"+fine.Digest.String(), nil)
		if err != nil || resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
			return false
		}
		if resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s without Retry-After", resp.Status)
		}
		return true
	})
	r.up.SetRule(nil)
	r.up.Release()
	for range cap(ended) {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	r.pull("", "a/b", fine)
}

func countPrefix(list []string, prefix string) (n int) {
	for _, s := range list {
		if len(s) >= len(prefix) && s[:len(prefix)] == prefix {
			n++
		}
	}
	return n
}

package upstream_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/remote/upstream"
)

// slow is a registry whose blobs begin, and go on when they are told to.
func slow(t *testing.T) (at string, release func()) {
	gate := make(chan struct{})
	release = sync.OnceFunc(func() { close(gate) })
	at = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead || r.URL.Path == "/v2/a/manifests/b" {
			return
		}
		w.Header().Set("Content-Length", "8")
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		<-gate
		io.WriteString(w, "half")
	})
	t.Cleanup(release) // before the server is closed
	return at, release
}

// TestChecksDoNotWaitForDownloads: with every worker on a download, permission is
// still asked for and manifests still come; another download waits.
func TestChecksDoNotWaitForDownloads(t *testing.T) {
	at, release := slow(t)
	c := client(t, upstream.Config{Workers: 2, QueueFor: 10 * time.Millisecond})
	var bodies []io.ReadCloser
	for range 2 {
		resp, err := c.Do(request(t, "GET", at+"/v2/a/blobs/b", ""))
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, resp.Body)
	}
	for range 100 {
		for _, what := range [][2]string{{"HEAD", "/v2/a/blobs/b"}, {"HEAD", "/v2/a/manifests/b"}, {"GET", "/v2/a/manifests/b"}} {
			if _, _, err := do(t, c, what[0], at+what[1], ""); err != nil {
				t.Fatalf("%s %s: %v", what[0], what[1], err)
			}
		}
	}
	_, _, err := do(t, c, "GET", at+"/v2/a/blobs/c", "")
	if e, ok := errors.AsType[*upstream.Error](err); !errors.Is(err, upstream.ErrBusy) || !ok || !e.Temporary() || e.RetryAfter() != time.Second {
		t.Errorf("third download: %v", err)
	}
	if s := c.Stats(); s.Busy != 1 || s.WorkersBusy != 2 || s.Workers != 2 || s.WorkersWait != 0 || s.ChecksBusy != 0 {
		t.Errorf("%+v", s)
	}
	release()
	for i, b := range bodies {
		if i == 0 { // read to its end, or closed before: both free the worker, once
			if data, err := io.ReadAll(b); err != nil || string(data) != "halfhalf" {
				t.Errorf("%q, %v", data, err)
			}
			if n := c.Stats().WorkersBusy; n != 1 {
				t.Errorf("%d workers busy after the end of a body", n)
			}
		}
		b.Close()
		b.Close()
	}
	if n := c.Stats().WorkersBusy; n != 0 {
		t.Errorf("%d workers busy", n)
	}
	if _, body, err := do(t, c, "GET", at+"/v2/a/blobs/c", ""); err != nil || body != "halfhalf" {
		t.Errorf("%q, %v", body, err)
	}
}

// TestQueue: who waits gets the worker that becomes free, or leaves.
func TestQueue(t *testing.T) {
	at, release := slow(t)
	c := client(t, upstream.Config{Workers: 1, QueueFor: time.Hour})
	resp, err := c.Do(request(t, "GET", at+"/v2/a/blobs/b", ""))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	left, got := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := c.Do(request(t, "GET", at+"/v2/a/blobs/b", "").WithContext(ctx))
		left <- err
	}()
	eventually(t, "one waits", func() bool { return c.Stats().WorkersWait == 1 })
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) || errors.Is(err, upstream.ErrBusy) {
		t.Errorf("who left: %v", err)
	}
	go func() {
		_, _, err := do(t, c, "GET", at+"/v2/a/blobs/b", "")
		got <- err
	}()
	eventually(t, "one waits", func() bool { return c.Stats().WorkersWait == 1 })
	release()
	resp.Body.Close()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// TestHostThatHangs: what is asked of other registries does not wait for it.
func TestHostThatHangs(t *testing.T) {
	gate := make(chan struct{})
	hangs := serve(t, func(http.ResponseWriter, *http.Request) { <-gate })
	at, _ := slow(t)
	c := client(t, upstream.Config{Workers: 1, Checks: 1, QueueFor: 10 * time.Millisecond})
	ended := make(chan error, 1)
	go func() {
		_, _, err := do(t, c, "HEAD", hangs+"/v2/a/blobs/b", "")
		ended <- err
	}()
	eventually(t, "it is asked", func() bool { return c.Stats().ChecksBusy == 1 })
	if _, _, err := do(t, c, "HEAD", hangs+"/v2/a/blobs/c", ""); !errors.Is(err, upstream.ErrBusy) {
		t.Errorf("second check: %v", err)
	}
	if _, _, err := do(t, c, "HEAD", at+"/v2/a/blobs/b", ""); err != nil {
		t.Errorf("other registry: %v", err)
	}
	close(gate)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if s := c.Stats(); s.ChecksBusy != 0 || s.ChecksWait != 0 || c.Lanes() != 0 {
		t.Errorf("%+v, %d lanes", s, c.Lanes())
	}
}

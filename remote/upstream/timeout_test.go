package upstream_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/remote/blob/stall"
	"github.com/reprise-containers/reprise/remote/upstream"
)

func expectTimeout(t *testing.T, what string, err error) {
	t.Helper()
	e, ok := errors.AsType[*upstream.Error](err)
	if !ok || !e.Timeout() || !e.Temporary() {
		t.Errorf("%s: %v, want a timeout", what, err)
	}
}

// TestTimeouts: each step has its time, and the worker is free after.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/body") {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "begin")
			w.(http.Flusher).Flush()
		}
		<-ctx.Done()
	})
	t.Cleanup(cancel) // before the server is closed
	// Long enough for a busy machine to begin the answer in.
	c := client(t, upstream.Config{Timeout: time.Second})
	for _, method := range []string{"HEAD", "GET"} {
		_, _, err := do(t, c, method, at+"/v2/a/blobs/head", "")
		expectTimeout(t, method, err)
	}
	resp, body, err := do(t, c, "GET", at+"/v2/a/blobs/body", "")
	expectTimeout(t, "body", err)
	if resp == nil || body != "begin" {
		t.Errorf("body %q", body)
	}
	if _, ok := errors.AsType[*stall.Error](err); !ok {
		t.Errorf("%v, want a stall", err)
	}
	if s := c.Stats(); s.Timeouts != 3 || s.WorkersBusy != 0 {
		t.Errorf("%+v", s)
	}
}

// TestNoTimeoutOfTheWhole: what moves may take as long as it takes.
func TestNoTimeoutOfTheWhole(t *testing.T) {
	t.Parallel()
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for range 6 {
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			time.Sleep(500 * time.Millisecond)
		}
	})
	c := client(t, upstream.Config{Timeout: 2 * time.Second})
	if _, body, err := do(t, c, "GET", at+"/v2/a/blobs/b", ""); err != nil || body != "xxxxxx" {
		t.Errorf("%q, %v", body, err)
	}
}

// TestSlowReader: who takes long to read is not cut off for it.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	at := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 8<<20)) })
	c := client(t, upstream.Config{Timeout: time.Second})
	resp, err := c.Do(request(t, "GET", at+"/v2/a/blobs/b", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	time.Sleep(1500 * time.Millisecond)
	if n, err := io.Copy(io.Discard, resp.Body); n != 8<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n := c.Stats().Bytes; n != 8<<20 {
		t.Errorf("%d bytes counted", n)
	}
}

// TestTruncated: half a body is an error and no end.
func TestTruncated(t *testing.T) {
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	c := client(t, upstream.Config{})
	_, body, err := do(t, c, "GET", at+"/v2/a/blobs/b", "")
	e, ok := errors.AsType[*upstream.Error](err)
	if !ok || !e.Temporary() || e.Timeout() || body != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", body, err)
	}
	if s := c.Stats(); s.WorkersBusy != 0 {
		t.Errorf("%+v", s)
	}
}

// TestCancelled: a caller that leaves takes its request with it.
func TestCancelled(t *testing.T) {
	arrived, left := make(chan struct{}), make(chan struct{})
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(left)
	})
	c := client(t, upstream.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	_, err := c.Do(request(t, "GET", at+"/v2/a/blobs/b", "").WithContext(ctx))
	e, ok := errors.AsType[*upstream.Error](err)
	if !ok || !errors.Is(err, context.Canceled) || e.Temporary() || e.Timeout() {
		t.Errorf("%v", err)
	}
	<-left
	if s := c.Stats(); s.WorkersBusy != 0 || s.Timeouts != 0 {
		t.Errorf("%+v", s)
	}
}

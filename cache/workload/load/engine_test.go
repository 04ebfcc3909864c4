package load_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

func TestItems(t *testing.T) {
	g := newRegistry(t)
	small, large := []byte("a blob"), bytes.Repeat([]byte("0123456789"), 100_000)
	ds, dl := g.add("team/app", small), g.add("team/app", large)
	wrong := digest.FromString("something else")
	g.blobs["team/app@"+wrong.String()] = small
	g.manifests["team/app@v1"] = []byte(`{"schemaVersion":2}`)
	blob := func(d digest.Digest) string { return "/v2/team/app/blobs/" + d.String() }
	for _, c := range []struct {
		name   string
		item   load.Item
		status int
		bytes  int64
		cause  load.Cause
	}{
		{"small", load.Item{Op: load.Get, Kind: trace.Blob, Path: blob(ds), Digest: ds}, 200, 6, ""},
		{"large", load.Item{Op: load.Get, Kind: trace.Blob, Path: blob(dl), Digest: dl}, 200, 1_000_000, ""},
		{"not what it should be", load.Item{Op: load.Get, Kind: trace.Blob, Path: blob(wrong), Digest: wrong}, 200, 6, load.CauseMismatch},
		{"said not to be", load.Item{Op: load.Head, Kind: trace.Blob, Path: blob(wrong), Digest: wrong}, 200, 0, load.CauseMismatch},
		{"head", load.Item{Op: load.Head, Kind: trace.Blob, Path: blob(dl), Digest: dl}, 200, 0, ""},
		{"range", load.Item{Op: load.Get, Kind: trace.Blob, Path: blob(dl), Digest: dl, Off: 10, Len: 4096}, 206, 4096, ""},
		{"range over the end", load.Item{Op: load.Get, Kind: trace.Blob, Path: blob(dl), Off: 999_990, Len: 4096}, 206, 10, ""},
		{"range after the end", load.Item{Op: load.Get, Kind: trace.Blob, Path: blob(ds), Off: 100, Len: 10}, 416, 0, load.CauseStatus},
		{"tag", load.Item{Op: load.Get, Kind: trace.Manifest, Path: "/v2/team/app/manifests/v1", Digest: digest.FromString(`{"schemaVersion":2}`)}, 200, 19, ""},
		{"ping", load.Item{Op: load.Get, Kind: trace.Ping, Path: "/v2/"}, 200, 0, ""},
		{"absent", load.Item{Op: load.Head, Kind: trace.Blob, Path: "/v2/team/none/blobs/" + ds.String(), Absent: true}, 404, 0, ""},
		{"missing", load.Item{Op: load.Get, Kind: trace.Blob, Path: "/v2/team/none/blobs/" + ds.String()}, 404, 0, load.CauseStatus},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := run(t, to(g.Server), c.item)[0]
			if r.Status != c.status || r.Bytes != c.bytes || r.Cause != c.cause || (r.Err != "") != (c.cause != "") {
				t.Errorf("got %d, %d bytes, %q (%s), want %d, %d bytes, %q", r.Status, r.Bytes, r.Cause, r.Err, c.status, c.bytes, c.cause)
			}
			if r.Ranged != (c.item.Len > 0) || r.Service < r.First || r.Latency < r.Service || r.Sent.Before(r.Intended) {
				t.Errorf("times do not fit: %+v", r)
			}
		})
	}
	t.Run("unchecked", func(t *testing.T) {
		cfg := to(g.Server)
		cfg.Unchecked = true
		if r := run(t, cfg, load.Item{Op: load.Get, Kind: trace.Blob, Path: blob(wrong), Digest: wrong})[0]; r.Cause != "" {
			t.Errorf("it was checked: %s", r.Err)
		}
	})
}

// TestWrongRange answers a request for a range with another.
func TestWrongRange(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-9/100")
		w.WriteHeader(http.StatusPartialContent)
		io.WriteString(w, "0123456789")
	}))
	defer s.Close()
	r := run(t, to(s), load.Item{Op: load.Get, Kind: trace.Blob, Path: "/v2/a/blobs/b", Off: 10, Len: 10})[0]
	if r.Cause != load.CauseMismatch {
		t.Errorf("another range was taken for the one asked for: %+v", r)
	}
}

// TestCauses has requests fail in each way.
func TestCauses(t *testing.T) {
	stop := make(chan struct{})
	mux := http.NewServeMux()
	s := httptest.NewUnstartedServer(mux)
	mux.HandleFunc("/v2/a/blobs/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, "the beginning")
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/v2/a/blobs/silent", func(http.ResponseWriter, *http.Request) { <-stop })
	mux.HandleFunc("/v2/a/blobs/stalled", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "the beginning")
		w.(http.Flusher).Flush()
		<-stop
	})
	mux.HandleFunc("/v2/a/blobs/slow", func(w http.ResponseWriter, r *http.Request) {
		for range 6 { // longer than the timeout in all
			io.WriteString(w, "a bit")
			w.(http.Flusher).Flush()
			time.Sleep(500 * time.Millisecond)
		}
	})
	mux.HandleFunc("/v2/a/blobs/busy", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "come\nback", http.StatusTooManyRequests)
	})
	mux.HandleFunc("/v2/a/blobs/round", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/v2/a/blobs/round", http.StatusFound)
	})
	s.Start()
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(stop) })
	for name, want := range map[string]load.Cause{
		"cut": load.CauseCut, "silent": load.CauseTimeout, "stalled": load.CauseTimeout, "slow": load.CauseNone,
		"busy": load.CauseStatus, "round": load.CauseStatus,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := to(s)
			cfg.Timeout = 2 * time.Second
			r := run(t, cfg, load.Item{Op: load.Get, Kind: trace.Blob, Path: "/v2/a/blobs/" + name})[0]
			if r.Cause != want {
				t.Errorf("cause is %q (%s), want %q", r.Cause, r.Err, want)
			}
			if name == "busy" && (r.Err != "status 429: come back" || r.Status != 429) {
				t.Errorf("the registry's words are lost: %+v", r)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		cfg := load.Config{Registries: []load.Registry{{Base: "http://" + l.Addr().String()}}}
		if r := run(t, cfg, load.Item{Op: load.Get, Path: "/v2/"})[0]; r.Cause != load.CauseConnect {
			t.Errorf("cause is %q (%s)", r.Cause, r.Err)
		}
	})
}

func TestTLS(t *testing.T) {
	g := newRegistry(t)
	d := g.add("a", []byte("x"))
	s := httptest.NewUnstartedServer(g)
	s.EnableHTTP2 = true
	var protocol atomic.Value
	g.before = func(_ http.ResponseWriter, r *http.Request) bool { protocol.Store(r.Proto); return false }
	s.StartTLS()
	defer s.Close()
	item := load.Item{Op: load.Get, Kind: trace.Blob, Path: "/v2/a/blobs/" + d.String(), Digest: d}
	if r := run(t, to(s), item)[0]; r.Cause != load.CauseConnect {
		t.Errorf("a certificate of nobody is taken: %+v", r)
	}
	cfg := to(s)
	cfg.Registries[0].Insecure = true
	if r := run(t, cfg, item)[0]; r.Cause != load.CauseNone || protocol.Load() != "HTTP/2.0" {
		t.Errorf("insecure: %+v over %v", r, protocol.Load())
	}
	cfg = to(s)
	cfg.Registries[0].CA = pemOf(s.Certificate())
	if r := run(t, cfg, item)[0]; r.Cause != load.CauseNone {
		t.Errorf("own root: %+v", r)
	}
}

// TestConfigErrors has registries that cannot be.
func TestConfigErrors(t *testing.T) {
	for _, r := range []load.Registry{{}, {Base: "registry:5000"}, {Base: "ftp://x"}, {Base: "http://u:p@x"}, {Base: "http://x", CA: "none"}} {
		if _, err := load.New(load.Config{Registries: []load.Registry{r}}); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
	if _, err := load.New(load.Config{}); err == nil {
		t.Error("no registry was taken")
	}
}

// TestAbort ends the context while requests are under way: each is told.
func TestAbort(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprint("closed ", closed), func(t *testing.T) {
			stop := make(chan struct{})
			arrived := make(chan struct{}, 100)
			s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				arrived <- struct{}{}
				<-stop
			}))
			defer s.Close()
			defer close(stop)
			cfg := to(s)
			cfg.Closed, cfg.Threads, cfg.MaxInFlight = closed, 4, 4
			e, err := load.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			why := errors.New("enough")
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				for range 4 {
					<-arrived
				}
				cancel(why)
			}()
			all := make([]load.Item, 100)
			for i := range all {
				all[i] = load.Item{Op: load.Get, Path: "/v2/"}
			}
			n := 0
			stats, err := e.Run(ctx, of(all...), func(r load.Result) {
				if n++; r.Cause != load.CauseAborted {
					t.Errorf("cause is %q: %s", r.Cause, r.Err)
				}
			})
			// The open loop may hold a fifth one that waits for its place.
			if !errors.Is(err, why) || n < 4 || n > 5 || stats.InFlight != 0 {
				t.Errorf("%d results, %+v, %v", n, stats, err)
			}
		})
	}
}

// TestSourceError ends a run with what was sent before it.
func TestSourceError(t *testing.T) {
	g := newRegistry(t)
	e, err := load.New(to(g.Server))
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	n := 0
	_, err = e.Run(t.Context(), &failing{items: of(load.Item{Op: load.Get, Path: "/v2/"}), err: broken}, func(load.Result) { n++ })
	if !errors.Is(err, broken) || n != 1 {
		t.Errorf("%d results, %v", n, err)
	}
}

type failing struct {
	*items
	err error
}

func (f *failing) Next(ctx context.Context) (load.Item, error) {
	it, err := f.items.Next(ctx)
	if errors.Is(err, io.EOF) {
		err = f.err
	}
	return it, err
}

// TestRedirects follows one to another address without the credentials.
func TestRedirects(t *testing.T) {
	p := []byte("stored elsewhere")
	var leaked atomic.Bool
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked.Store(r.Header.Get("Authorization") != "")
		if r.URL.Query().Get("signature") != "x" {
			w.WriteHeader(http.StatusForbidden)
		}
		w.Write(p)
	}))
	defer store.Close()
	var sent atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent.Store(r.Header.Get("Authorization"))
		http.Redirect(w, r, store.URL+"/blob?signature=x", http.StatusTemporaryRedirect)
	}))
	defer s.Close()
	cfg := to(s)
	cfg.Registries[0].Auth.Token = "secret"
	d := digest.FromBytes(p)
	r := run(t, cfg, load.Item{Op: load.Get, Kind: trace.Blob, Path: "/v2/a/blobs/" + d.String(), Digest: d})[0]
	if r.Cause != "" || r.Status != 200 || sent.Load() != "Bearer secret" {
		t.Errorf("%+v with %v", r, sent.Load())
	}
	if leaked.Load() {
		t.Error("the token went to another address")
	}
}

// TestCap holds the requests under way to the bound and says that it did.
func TestCap(t *testing.T) {
	var now, most atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(5 * time.Millisecond)
	}))
	defer s.Close()
	cfg := to(s)
	cfg.MaxInFlight = 3
	e, err := load.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	all := make([]load.Item, 60)
	for i := range all {
		all[i] = load.Item{Op: load.Get, Path: "/v2/"}
	}
	stats, err := e.Run(t.Context(), of(all...), func(load.Result) {})
	if err != nil || most.Load() != 3 || stats.MaxInFlight != 3 || stats.Capped == 0 {
		t.Errorf("%d at one time, %+v, %v", most.Load(), stats, err)
	}
	if text := strings.Join(stats.Saturated, "; "); !strings.Contains(text, "late") || !strings.Contains(text, "waited because 3 were") {
		t.Errorf("saturated: %q", text)
	}
}

// TestDueAndDuration sends when items are due and no more after Duration, in time that
// is the test's own.
func TestDueAndDuration(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  load.Config
	}{{"open", load.Config{}}, {"paced", load.Config{Closed: true, Paced: true}}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pipes := newPipes(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
				defer pipes.close()
				cfg := load.WithDial(c.cfg, pipes.dial)
				cfg.Registries = []load.Registry{{Base: "http://registry"}}
				cfg.Start = time.Now().Add(3 * time.Second).Round(0)
				cfg.Duration = 10 * time.Second
				e, err := load.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer e.Close()
				var all []load.Item
				for i := range 20 {
					all = append(all, load.Item{Op: load.Get, Path: "/v2/", Due: time.Duration(i) * 700 * time.Millisecond})
				}
				n := 0
				stats, err := e.Run(t.Context(), of(all...), func(r load.Result) {
					n++
					if want := cfg.Start.Add(all[r.Seq].Due); !r.Sent.Equal(want) || !r.Intended.Equal(want) || r.Late != 0 {
						t.Errorf("%d was sent at %v, %v late, due at %v", r.Seq, r.Sent, r.Late, want)
					}
				})
				if err != nil || n != 15 || stats.Saturated != nil { // 0 to 9.8 s
					t.Errorf("%d results, %+v, %v", n, stats, err)
				}
			})
		})
	}
}

// TestLateIsSent ends a run while requests that were due wait for their turn: they are
// sent, and those that would be due later are not.
func TestLateIsSent(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(60 * time.Millisecond) }))
	defer s.Close()
	cfg := to(s)
	cfg.MaxInFlight, cfg.Duration = 1, 50*time.Millisecond
	var all []load.Item
	for _, due := range []time.Duration{0, 1, 2, 49, 50, 60} {
		all = append(all, load.Item{Op: load.Get, Kind: trace.Ping, Path: "/v2/", Due: due * time.Millisecond})
	}
	e, err := load.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var got []load.Result
	if _, err := e.Run(t.Context(), of(all...), func(r load.Result) { got = append(got, r) }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 || got[3].Late == 0 {
		t.Errorf("%+v", got)
	}
}

// TestNothingLeft counts the goroutines before and after.
func TestNothingLeft(t *testing.T) {
	g := newRegistry(t)
	before := runtime.NumGoroutine()
	all := make([]load.Item, 200)
	for i := range all {
		all[i] = load.Item{Op: load.Get, Path: "/v2/"}
	}
	run(t, to(g.Server), all...)
	g.CloseClientConnections()
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
}

// TestExhausted has the machine run out of files, which is not the registry's doing.
func TestExhausted(t *testing.T) {
	cfg := load.WithDial(load.Config{Registries: []load.Registry{{Base: "http://registry"}}}, func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", syscall.EMFILE)}
	})
	e, err := load.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stats, err := e.Run(t.Context(), of(gets(3, "/v2/a/blobs/b")...), func(r load.Result) {
		if r.Cause != load.CauseConnect {
			t.Errorf("%+v", r)
		}
	})
	if text := strings.Join(stats.Saturated, "; "); err != nil || !strings.Contains(text, "3 requests found no port, file or buffer") {
		t.Errorf("saturated: %q, %v", text, err)
	}
}

// TestEarly has no request sent before it is due, and none long after, by the clock of
// the kernel.
func TestEarly(t *testing.T) {
	g := newRegistry(t)
	all := make([]load.Item, 100)
	for i := range all {
		all[i] = load.Item{Op: load.Get, Kind: trace.Ping, Path: "/v2/", Due: time.Duration(i) * 3100 * time.Microsecond}
	}
	first := time.Time{}
	for i, r := range run(t, to(g.Server), all...) {
		if i == 0 {
			first = r.Intended
		}
		if r.Sent.Before(r.Intended) || r.Intended.Sub(first) != all[i].Due {
			t.Errorf("%d was due %v after the first, and is said to be %v after it, sent %v later", i, all[i].Due, r.Intended.Sub(first), r.Sent.Sub(r.Intended))
		}
	}
}

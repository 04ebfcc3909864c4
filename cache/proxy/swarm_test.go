package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache/cachetest"
)

// pull gets a blob and compares it; arrived, if not nil, is called with the first
// byte.
func (r *rig) pull(req *http.Request, want []byte, arrived func()) error {
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		return errors.New(resp.Status)
	}
	got := make([]byte, len(want))
	n, err := io.ReadFull(resp.Body, got[:1])
	if err == nil && arrived != nil {
		arrived()
	}
	if err == nil {
		var m int
		m, err = io.ReadFull(resp.Body, got[1:])
		n += m
	}
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", n, err)
	}
	if !bytes.Equal(got, want) {
		return errors.New("other bytes")
	}
	return nil
}

// TestSwarm has 100 clients, each with its own credentials, pull a cold blob at the
// same time: one GET upstream, and each has its first byte before that ends.
func TestSwarm(t *testing.T) {
	for _, redirect := range []bool{false, true} {
		t.Run(fmt.Sprintf("redirect=%v", redirect), func(t *testing.T) {
			g := newRegistry(t)
			data := cachetest.Random(8<<20, 1)
			d := g.addBlob("app", data)
			g.repo("app").redirect = redirect
			g.hold = make(chan struct{})
			r := newRig(t, g)
			r.cfg.Streamers = 100
			r.start(t)
			const clients = 100
			var early atomic.Int32
			all := make(chan struct{})
			var eg errgroup.Group
			for i := range clients {
				req := r.request(t, http.MethodGet, "/v2/app/blobs/"+d.String(), fmt.Sprintf("user%d", i))
				eg.Go(func() error {
					return r.pull(req, data, func() {
						if early.Add(1) == clients {
							close(all)
						}
					})
				})
			}
			select {
			case <-all:
			case <-time.After(time.Minute):
				t.Errorf("%d of %d clients have their first byte", early.Load(), clients)
			}
			close(g.hold)
			if err := eg.Wait(); err != nil {
				t.Fatal(err)
			}
			if n := g.count(http.MethodGet, "/v2/app/blobs/"); n != 1 {
				t.Errorf("%d GETs", n)
			}
			if n := g.count(http.MethodHead, "/v2/app/blobs/"); n != clients {
				t.Errorf("%d HEADs", n)
			}
			if g.served != int64(len(data)) {
				t.Errorf("upstream sent %d bytes of %d", g.served, len(data))
			}
		})
	}
}

// TestSwarmManifests has the clients get a cold manifest.
func TestSwarmManifests(t *testing.T) {
	g := newRegistry(t)
	text := []byte(`{"mediaType":"` + ociManifest + `","config":{}}`)
	g.addManifest("app", "v1", ociManifest, text)
	wait := make(chan struct{})
	g.order(&fault{method: http.MethodGet, path: "manifests", wait: wait, count: 1})
	r := newRig(t, g).start(t)
	var eg errgroup.Group
	for i := range 100 {
		req := r.request(t, http.MethodGet, "/v2/app/manifests/v1", fmt.Sprintf("user%d", i%10))
		eg.Go(func() error { return r.pull(req, text, nil) })
	}
	for g.count(http.MethodHead, "manifests") < 10 || g.count(http.MethodGet, "manifests") < 1 {
		time.Sleep(time.Millisecond)
	}
	close(wait)
	if err := eg.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := g.count(http.MethodGet, "manifests"); n != 1 {
		t.Errorf("%d GETs", n)
	}
}

// TestRefusedLeader has one who is refused by the GET, and others who are not,
// wait for the same manifest.
func TestRefusedLeader(t *testing.T) {
	g := newRegistry(t)
	text := []byte(`{"mediaType":"` + ociManifest + `","config":{}}`)
	g.addManifest("app", "v1", ociManifest, text)
	wait := make(chan struct{})
	g.order(&fault{method: http.MethodGet, path: "manifests", wait: wait, count: 1, status: http.StatusForbidden})
	r := newRig(t, g).start(t)
	leader := make(chan error, 1)
	req := r.request(t, http.MethodGet, "/v2/app/manifests/v1", "alice")
	go func() { leader <- r.pull(req, text, nil) }()
	for g.count(http.MethodGet, "manifests") < 1 {
		time.Sleep(time.Millisecond)
	}
	var eg errgroup.Group
	for range 5 {
		req := r.request(t, http.MethodGet, "/v2/app/manifests/v1", "bob")
		eg.Go(func() error { return r.pull(req, text, nil) })
	}
	for g.count(http.MethodHead, "manifests") < 2 {
		time.Sleep(time.Millisecond)
	}
	close(wait)
	if err := <-leader; err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("the leader got %v", err)
	}
	if err := eg.Wait(); err != nil {
		t.Errorf("others got %v", err)
	}
	if n := g.count(http.MethodGet, "manifests"); n != 2 {
		t.Errorf("%d GETs", n)
	}
}

// TestRanges has clients read parts of a cold blob at random, while others pull it.
func TestRanges(t *testing.T) {
	g := newRegistry(t)
	data := cachetest.Random(4<<20, 1)
	d := g.addBlob("app", data)
	g.repo("app").redirect = true
	r := newRig(t, g)
	r.start(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	var eg errgroup.Group
	eg.SetLimit(50)
	for i := range 300 {
		off := rnd.IntN(len(data))
		end := min(len(data), off+1+rnd.IntN(200_000))
		if i%50 == 0 {
			off, end = 0, len(data)
		}
		req := r.request(t, http.MethodGet, "/v2/app/blobs/"+d.String(), "alice")
		if end-off < len(data) {
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, end-1))
		}
		eg.Go(func() error { return r.pull(req, data[off:end], nil) })
	}
	if err := eg.Wait(); err != nil {
		t.Fatal(err)
	}
	if float64(g.served) > 1.5*float64(len(data)) { // ranges ahead of a whole fetch may come twice
		t.Errorf("upstream sent %d bytes of %d", g.served, len(data))
	}
}

// TestClientLeaves has the only client leave in the middle: the fetch goes on, and
// whoever comes next needs no other.
func TestClientLeaves(t *testing.T) {
	g := newRegistry(t)
	data := cachetest.Random(2<<20, 1)
	d := g.addBlob("app", data)
	g.hold = make(chan struct{})
	r := newRig(t, g).start(t)
	ctx, cancel := context.WithCancel(context.Background())
	req := r.request(t, http.MethodGet, "/v2/app/blobs/"+d.String(), "alice").WithContext(ctx)
	if err := r.pull(req, data, cancel); err == nil {
		t.Fatal("the client did not leave")
	}
	if rec := r.observed(t, 1)[0]; !rec.Aborted || rec.Status != http.StatusOK {
		t.Errorf("%+v", rec)
	}
	close(g.hold)
	req = r.request(t, http.MethodGet, "/v2/app/blobs/"+d.String(), "bob")
	if err := r.pull(req, data, nil); err != nil {
		t.Fatal(err)
	}
	if n := g.count(http.MethodGet, "blobs"); n != 1 {
		t.Errorf("%d GETs", n)
	}
}

// TestStreamers holds all streams there may be: the next client waits for its turn
// and is told to come again, but what is in memory needs none.
func TestStreamers(t *testing.T) {
	g := newRegistry(t)
	big, small := cachetest.Random(2<<20, 1), cachetest.Random(100, 2)
	d, s := g.addBlob("app", big), g.addBlob("app", small)
	r := newRig(t, g)
	r.cfg.Streamers, r.cfg.QueueFor = 2, time.Millisecond
	r.start(t)
	if err := r.pull(r.request(t, http.MethodGet, "/v2/app/blobs/"+s.String(), ""), small, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.pull(r.request(t, http.MethodGet, "/v2/app/blobs/"+s.String(), ""), small, nil); err != nil {
		t.Fatal(err)
	}
	g.hold = make(chan struct{})
	var eg errgroup.Group
	var arrived sync.WaitGroup
	arrived.Add(2)
	for range 2 {
		req := r.request(t, http.MethodGet, "/v2/app/blobs/"+d.String(), "")
		eg.Go(func() error { return r.pull(req, big, arrived.Done) })
	}
	arrived.Wait()
	resp, err := r.client.Do(r.request(t, http.MethodGet, "/v2/app/blobs/"+d.String(), ""))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" || !bytes.Contains(body, []byte("TOOMANYREQUESTS")) {
		t.Errorf("%s %v %s", resp.Status, resp.Header, body)
	}
	if err := r.pull(r.request(t, http.MethodGet, "/v2/app/blobs/"+s.String(), ""), small, nil); err != nil {
		t.Errorf("from memory: %v", err)
	}
	if s := r.handler.Stats(); s.Streaming != 2 || s.StreamersRefused != 1 {
		t.Errorf("%+v", s)
	}
	close(g.hold)
	if err := eg.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestSlowReader has a client take nothing: its answer ends, others' do not wait.
func TestSlowReader(t *testing.T) {
	for _, warm := range []bool{false, true} {
		t.Run(fmt.Sprintf("warm=%v", warm), func(t *testing.T) {
			g := newRegistry(t)
			data := cachetest.Random(32<<20, 1) // more than the sockets hold
			d := g.addBlob("app", data)
			r := newRig(t, g)
			r.cfg.WriteTimeout = 300 * time.Millisecond
			r.start(t)
			path := "/v2/app/blobs/" + d.String()
			if warm {
				if err := r.pull(r.request(t, http.MethodGet, path, ""), data, nil); err != nil {
					t.Fatal(err)
				}
				r.observed(t, 1)
			}
			slow, err := r.client.Do(r.request(t, http.MethodGet, path, ""))
			if err != nil {
				t.Fatal(err)
			}
			defer slow.Body.Close()
			if err := r.pull(r.request(t, http.MethodGet, path, ""), data, nil); err != nil {
				t.Fatal(err)
			}
			for _, rec := range r.observed(t, 2) {
				if rec.Aborted == (rec.Bytes == int64(len(data))) {
					t.Errorf("%+v", rec)
				}
			}
			if _, err := io.Copy(io.Discard, slow.Body); err == nil {
				t.Error("the slow client got all of it")
			}
		})
	}
}

// TestGoroutines holds that nothing is left of the requests that were made.
func TestGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	g := newRegistry(t)
	d := g.addBlob("app", cachetest.Random(1<<20, 1))
	r := newRig(t, g).start(t)
	for i := range 20 {
		ctx, cancel := context.WithCancel(context.Background())
		req := r.request(t, http.MethodGet, "/v2/app/blobs/"+d.String(), fmt.Sprint(i)).WithContext(ctx)
		if resp, err := r.client.Do(req); err == nil {
			_, _ = io.CopyN(io.Discard, resp.Body, int64(i)*10_000)
			cancel()
			resp.Body.Close()
		}
		cancel()
	}
	r.observed(t, 20)
	r.stop()
	g.Close()
	g.store.Close()
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before+2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

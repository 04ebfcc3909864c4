package replayer_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/content"
	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/schedule"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// results sends the requests of a trace and returns what became of them, by URI.
func results(t *testing.T, cfg load.Config, how schedule.Config, requests ...trace.Request) map[string][]load.Result {
	t.Helper()
	src, err := schedule.New(trace.Of(requests...), how)
	if err != nil {
		t.Fatal(err)
	}
	e, err := load.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	out := map[string][]load.Result{}
	if _, err := e.Run(t.Context(), src, func(r load.Result) { out[r.URI] = append(out[r.URI], r) }); err != nil {
		t.Fatal(err)
	}
	if left := src.Stats().LeftOut; len(left) > 0 {
		t.Logf("left out: %v", left)
	}
	return out
}

// TestLoadOfRealRegistry pushes blobs as a whole, in parts and through the client,
// manifests, and reads all of it back, in both loops.
func TestLoadOfRealRegistry(t *testing.T) {
	address := realRegistry(t, "")
	cfg := load.Config{Registries: []load.Registry{{Base: address}}, Seed: 3}
	made := content.New(3, false)

	var pushes []trace.Request
	add := func(method, uri string, size int64) {
		pushes = append(pushes, trace.Request{Method: method, URI: uri, Size: size, Client: "c", Delay: time.Duration(len(pushes)) * time.Millisecond})
	}
	for i := range 30 {
		add("PUT", fmt.Sprint("v2/team/whole/blobs/u", i), int64(i*i*1000))
		add("POST", "v2/team/parts/blobs/uploads/", 0)
		add("PATCH", fmt.Sprint("v2/team/parts/blobs/uploads/p", i), int64(1000+i))
		add("PATCH", fmt.Sprint("v2/team/parts/blobs/uploads/p", i), int64(i))
		add("PUT", fmt.Sprint("v2/team/parts/blobs/uploads/p", i), 0)
		add("PUT", fmt.Sprint("v2/team/whole/manifests/tag", i), int64(500+i))
	}
	for _, uploads := range []schedule.Uploads{schedule.Whole, schedule.Parts} {
		n := 0
		for uri, rs := range results(t, cfg, schedule.Config{Uploads: uploads}, pushes...) {
			for _, r := range rs {
				if n++; r.Cause != load.CauseNone {
					t.Errorf("%s, %s: %+v", uploads, uri, r)
				}
			}
		}
		if want := map[schedule.Uploads]int{schedule.Whole: 90, schedule.Parts: 180}[uploads]; n != want {
			t.Errorf("%s: %d results, want %d", uploads, n, want)
		}
	}

	client, err := load.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	known := map[string]string{}
	var reads []trace.Request
	for i := range 40 {
		uri, size := fmt.Sprint("v2/team/app/blobs/b", i), int64(i*i*i*40)
		d, err := made.Digest(t.Context(), uri, size)
		if err != nil {
			t.Fatal(err)
		}
		o := load.Object{Repository: "team/app", Kind: trace.Blob, Digest: d, Size: size, Body: func(off int64) io.Reader {
			b := made.Body(uri, size)
			b.Seek(off, io.SeekStart)
			return b
		}}
		if a, err := client.Push(t.Context(), o); err != nil || a.Status != http.StatusCreated {
			t.Fatalf("push: %+v, %v", a, err)
		}
		o.Repository, o.From = "other/app", "team/app"
		if a, err := client.Push(t.Context(), o); err != nil || !a.Mounted {
			t.Errorf("mount: %+v, %v", a, err)
		}
		known[uri] = d.String()
		reads = append(reads, trace.Request{Method: "GET", URI: uri, Size: size, Status: 200}, trace.Request{Method: "HEAD", URI: uri, Status: 200})
		if size > 200 {
			reads = append(reads, trace.Request{Method: "GET", URI: uri, Off: 100, Len: 4096, Status: 206})
		}
	}
	reads = append(reads, trace.Request{Method: "GET", URI: "v2", Status: 200}, trace.Request{Method: "GET", URI: "v2/team/app/blobs/none", Status: 404},
		trace.Request{Method: "GET", URI: "v2/team/whole/tags/list", Status: 200})
	var stream []trace.Request
	rng := rand.New(rand.NewPCG(1, 1))
	for range 3000 {
		r := reads[rng.IntN(len(reads))]
		r.Delay = time.Duration(len(stream)) * time.Millisecond / 2
		stream = append(stream, r)
	}
	for _, closed := range []bool{false, true} {
		cfg.Closed, cfg.Threads = closed, 4
		n := 0
		for uri, rs := range results(t, cfg, schedule.Config{Map: known}, stream...) {
			for _, r := range rs {
				if n++; r.Cause != load.CauseNone {
					t.Errorf("closed %v, %s: %+v", closed, uri, r)
				}
			}
		}
		if n != len(stream) {
			t.Errorf("closed %v: %d results of %d", closed, n, len(stream))
		}
	}
}

// TestLoadWithPassword speaks to a registry that wants a user name and password.
func TestLoadWithPassword(t *testing.T) {
	const hash = "$2a$04$DRgYpwBhXbgDMVx36V3z6uFBao2hjGt2vyNFR4Ncz4BABxR14LX.6" // bcrypt of "secret"
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte("ann:"+hash+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	address := realRegistry(t, "auth: {htpasswd: {realm: test, path: "+file+"}}\n")
	push := trace.Request{Method: "PUT", URI: "v2/a/blobs/x", Size: 100_000}
	for password, want := range map[string]load.Cause{"secret": load.CauseNone, "guess": load.CauseStatus} {
		cfg := load.Config{Registries: []load.Registry{{Base: address, Auth: load.Auth{Username: "ann", Password: load.Secret(password)}}}}
		if r := results(t, cfg, schedule.Config{}, push)["v2/a/blobs/x"][0]; r.Cause != want {
			t.Errorf("%s: %+v", password, r)
		}
	}
}

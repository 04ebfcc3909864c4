package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/cmd/internal/accesslog"
	"github.com/reprise-containers/reprise/cmd/internal/cacheadmin"
	"github.com/reprise-containers/reprise/cmd/internal/cachechain"
)

// All that an operator can do, against a cache that runs.
func TestOperator(t *testing.T) {
	o := newOrigin(t)
	// The path of the socket is too long for a socket.
	r := begin(t, filepath.Join(t.TempDir(), strings.Repeat("long", 30)), "--upstream", o.host)
	r.pull(o)
	r.pull(o)
	if n := o.got(o.layer.Digest); n != 1 {
		t.Errorf("the layer was fetched %d times", n)
	}
	s := r.stat()
	if s.Blobs != 3 || s.Links == 0 || s.Outcomes["miss"] != 3 || s.Outcomes["hit"] != 3 {
		t.Errorf("after two pulls: %+v", s)
	}
	if out, err := r.command("stat"); err != nil || !strings.Contains(out, "3 blobs") || !strings.Contains(out, r.address) {
		t.Errorf("stat prints %v\n%s", err, out)
	}
	out, err := r.command("stat", "--blobs")
	if err != nil || strings.Count(out, "verified") != 3 || !strings.Contains(out, o.layer.Digest.String()) {
		t.Errorf("stat --blobs prints %v\n%s", err, out)
	}
	if out, err := r.command("verify"); err != nil || !strings.Contains(out, "scrubbed    3\n") {
		t.Errorf("verify prints %v\n%s", err, out)
	}
	if out, err := r.command("gc", "--json"); err != nil || !json.Valid([]byte(out)) {
		t.Errorf("gc prints %v\n%s", err, out)
	}
	st, err := os.Stat(filepath.Join(r.data, cacheadmin.SocketName))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", st, err)
	}
	r.end()
	if _, err := r.command("stat"); !errors.Is(err, cacheadmin.ErrNotRunning) {
		t.Errorf("stat of a cache that does not run: %v", err)
	}
}

// What the disk made of a blob is found, given up and fetched again.
func TestVerifyFindsDamage(t *testing.T) {
	o := newOrigin(t)
	r := begin(t, t.TempDir(), "--upstream", o.host)
	r.pull(o)
	damaged := 0
	for _, name := range r.files("", o.layer.Size) {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("damage"), o.layer.Size/2); err != nil {
			t.Fatal(err)
		}
		f.Close()
		damaged++
	}
	if damaged != 1 {
		t.Fatalf("%d files are as large as the layer", damaged)
	}
	out, err := r.command("verify")
	if err == nil || !strings.Contains(err.Error(), "1 blobs were damaged") {
		t.Errorf("verify: %v\n%s", err, out)
	}
	r.pull(o)
	if n := o.got(o.layer.Digest); n != 2 {
		t.Errorf("the layer was fetched %d times, want 2", n)
	}
	if out, err := r.command("verify"); err != nil {
		t.Errorf("verify again: %v\n%s", err, out)
	}
}

func TestPurge(t *testing.T) {
	o := newOrigin(t)
	r := begin(t, t.TempDir(), "--upstream", o.host)
	for _, c := range []struct {
		args  []string
		blobs int // that are left
	}{
		{[]string{o.layer.Digest.String()}, 2},
		{[]string{o.host + "/team/app:v1"}, 0},
		{[]string{o.host + "/team/app@" + o.manifest.Digest.String()}, 0},
		{[]string{o.host + "/team/app"}, 0},
		{[]string{o.host + "/team/other"}, 3},
		{[]string{"--all"}, 0},
	} {
		r.pull(o)
		if out, err := r.command(append([]string{"purge"}, c.args...)...); err != nil {
			t.Errorf("purge %v: %v\n%s", c.args, err, out)
		}
		if s := r.stat(); s.Blobs != c.blobs {
			t.Errorf("after purge %v: %+v, want %d blobs", c.args, s, c.blobs)
		}
		before := o.got(o.layer.Digest)
		r.pull(o)
		if again := o.got(o.layer.Digest) - before; (again == 0) != (c.blobs == 3) {
			t.Errorf("after purge %v the layer was fetched %d times", c.args, again)
		}
	}
	for _, args := range [][]string{nil, {"app"}, {"sha256:beef"}, {"host/"}} {
		if out, err := r.command(append([]string{"purge"}, args...)...); err == nil {
			t.Errorf("purge %v: no error\n%s", args, out)
		}
	}
}

// A restart serves what was there.
func TestRestart(t *testing.T) {
	o := newOrigin(t)
	data := t.TempDir()
	r := begin(t, data, "--upstream", o.host)
	r.pull(o)
	r.end()
	r = begin(t, data, "--upstream", o.host)
	r.pull(o)
	if n := o.got(o.layer.Digest); n != 1 {
		t.Errorf("the layer was fetched %d times", n)
	}
}

func TestOneProcess(t *testing.T) {
	o := newOrigin(t)
	r := begin(t, t.TempDir(), "--upstream", o.host)
	err := app().Run(t.Context(), []string{"registry-cache", "--data", r.data, "--upstream", o.host, "--listen", free(t), "--metrics", ""})
	if !errors.Is(err, cachechain.ErrInUse) {
		t.Errorf("a second process: %v", err)
	}
	r.pull(o)
	if _, err := r.command("stat"); err != nil {
		t.Errorf("the first one's socket: %v", err)
	}
}

func TestForeignFolder(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "mine")
	if err := os.WriteFile(mine, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := app().Run(t.Context(), []string{"registry-cache", "--data", dir, "--upstream", "127.0.0.1:1", "--listen", free(t)})
	if !errors.Is(err, cachechain.ErrForeign) {
		t.Errorf("a folder with a file in it: %v", err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("something was made beside the file: %v", names)
	}
	if err := os.Rename(mine, filepath.Join(dir, "lost+found")); err != nil {
		t.Fatal(err)
	}
	d, err := cachechain.OpenDataPath(dir)
	if err != nil {
		t.Fatalf("a new file system: %v", err)
	}
	salt := d.Salt
	d.Close()
	if d, err = cachechain.OpenDataPath(dir); err != nil || string(d.Salt) != string(salt) {
		t.Errorf("opened again: %v", err)
	}
	d.Close()
}

// Who is being served when the cache is told to end gets all of it.
func TestDrain(t *testing.T) {
	o := newOrigin(t)
	o.gate = make(chan struct{})
	r := begin(t, t.TempDir(), "--upstream", o.host)
	resp, err := http.Get("http://" + r.address + "/v2/team/app/blobs/" + o.layer.Digest.String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 4096)
	if _, err := io.ReadFull(resp.Body, first); err != nil {
		t.Fatal(err)
	}
	r.cancel()
	for r.status("readyz") == http.StatusOK {
		time.Sleep(time.Millisecond)
	}
	if got := r.status("healthz"); got != http.StatusOK {
		t.Errorf("healthz while ending: %d", got)
	}
	close(o.gate)
	rest, err := io.ReadAll(resp.Body)
	if err != nil || digest.FromBytes(append(first, rest...)) != o.layer.Digest {
		t.Errorf("the rest has %d bytes, %v", len(rest), err)
	}
	r.end()
}

// Requests are logged in both forms, and the trace form is what the replayer of the
// published traces reads.
func TestAccessLog(t *testing.T) {
	o := newOrigin(t)
	dir := t.TempDir()
	for _, format := range []string{"json", "trace"} {
		file, logged := filepath.Join(dir, format+".yaml"), filepath.Join(dir, format+".log")
		text := "accessLog: {path: " + logged + ", format: " + format + "}\nlog: {level: error}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := begin(t, filepath.Join(dir, format), "--config", file, "--upstream", o.host)
		r.pull(o)
		r.end()
		content, err := os.ReadFile(logged)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]int64{}
		if format == "trace" {
			var requests []trace.Record
			if err := json.Unmarshal(content, &requests); err != nil {
				t.Fatalf("%v\n%s", err, content)
			}
			for _, q := range requests {
				if _, err := time.Parse("2006-01-02T15:04:05.000Z", q.Timestamp); err != nil || q.Status != 200 || q.Host != o.host {
					t.Errorf("request %+v, %v", q, err)
				}
				seen["/"+q.URI] = q.Written
			}
		} else {
			for line := range strings.Lines(string(content)) {
				var e accesslog.Entry
				if err := json.Unmarshal([]byte(line), &e); err != nil {
					t.Fatalf("%v\n%s", err, line)
				}
				if e.Outcome != "miss" || e.Upstream != o.host || e.Client != "127.0.0.1" {
					t.Errorf("request %+v", e)
				}
				seen[e.Path] = e.Bytes
			}
		}
		if len(seen) != 3 || seen["/v2/team/app/blobs/"+o.layer.Digest.String()] != o.layer.Size || seen["/v2/team/app/manifests/v1"] != o.manifest.Size {
			t.Errorf("%s: logged %v", format, seen)
		}
	}
}

func TestUpstreamFlag(t *testing.T) {
	for text, want := range map[string]string{
		"registry.example": "https registry.example", "registry.example:5000": "https registry.example:5000",
		"127.0.0.1:5000": "http 127.0.0.1:5000", "[::1]:5000": "http [::1]:5000", "localhost": "http localhost",
		"https://localhost:5000": "https localhost:5000", "http://registry.example/": "http registry.example",
		"docker.io": "https registry-1.docker.io",
		"":          "", "http://": "", "registry.example/team": "", "user@registry.example": "",
	} {
		b, err := parseUpstream(text)
		if got := b.Scheme + " " + b.Host; err == nil && got != want || (err != nil) != (want == "") {
			t.Errorf("%q is %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestWithoutUpstream(t *testing.T) {
	if err := app().Run(t.Context(), []string{"registry-cache", "--data", t.TempDir()}); !errors.Is(err, errNoUpstream) {
		t.Errorf("without an upstream: %v", err)
	}
	if err := app().Run(t.Context(), []string{"registry-cache", "serve"}); err == nil {
		t.Error("an unknown command is none")
	}
}

func TestConfigCommandPrintsWhatHolds(t *testing.T) {
	r := &running{t: t, data: "/srv/cache"}
	out, err := r.command("--upstream", "127.0.0.1:5000", "--allow-address", "10.0.0.0/8", "config")
	if err != nil || !strings.Contains(out, "dataPath: /srv/cache\n") || !strings.Contains(out, "host: 127.0.0.1:5000\n") || !strings.Contains(out, "- 10.0.0.0/8\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

// References, and so containerd's ns parameter, call Docker Hub otherwise than its
// host.
func TestDockerHub(t *testing.T) {
	r := &running{t: t, data: "/srv/cache"}
	out, err := r.command("--upstream", "docker.io", "config")
	if err != nil || !strings.Contains(out, "host: registry-1.docker.io\n") || !strings.Contains(out, "    docker.io:\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

// With certificates TLS is served, HTTP/2 too, and plain HTTP is not.
func TestTLS(t *testing.T) {
	o := newOrigin(t)
	dir := t.TempDir()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS() // for its certificate
	pair, pool := s.TLS.Certificates[0], x509.NewCertPool()
	pool.AddCert(s.Certificate())
	s.Close()
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, "tls.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "config.yaml")
	text := "server: {tls: {certPath: " + dir + "/tls.crt, keyPath: " + dir + "/tls.key}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := begin(t, filepath.Join(dir, "data"), "--config", file, "--upstream", o.host)
	for range 2 { // cold, and from the file
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "example.com"}, ForceAttemptHTTP2: true}
		resp, err := (&http.Client{Transport: tr}).Get("https://" + r.address + "/v2/team/app/blobs/" + o.layer.Digest.String())
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.ProtoMajor != 2 || digest.FromBytes(body) != o.layer.Digest {
			t.Errorf("by %s: %d bytes, %v", resp.Proto, len(body), err)
		}
		tr.CloseIdleConnections()
	}
	resp, err := http.Get("http://" + r.address + "/v2/")
	if err == nil && resp.StatusCode != http.StatusBadRequest {
		t.Errorf("plain HTTP: %s", resp.Status)
	}
}

// SIGHUP has the access log go on in a new file.
func TestHangUp(t *testing.T) {
	o := newOrigin(t)
	dir := t.TempDir()
	file, logged := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "access.log")
	if err := os.WriteFile(file, []byte("accessLog: {path: "+logged+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := begin(t, filepath.Join(dir, "data"), "--config", file, "--upstream", o.host)
	r.pull(o)
	// A client has its answer before the request is logged.
	for {
		if text, err := os.ReadFile(logged); err == nil && strings.Count(string(text), "\n") == 3 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := os.Rename(logged, logged+".1"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(logged); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	r.get("manifests/v1")
	r.end()
	for name, want := range map[string]int{logged + ".1": 3, logged: 1} {
		if text, err := os.ReadFile(name); err != nil || strings.Count(string(text), "\n") != want {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

package cacheconfig_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/cmd/internal/cacheconfig"
)

// example is the original's example, with what it names of a site.
const example = `
dataPath: /cache/
server:
  workers: 10
  streamers: 100
  upstreamTimeout: 1m
  timeout: 1m
  address: 0.0.0.0:7000
  defaultBackend:
    host: myregistry.com
    scheme: https
  upstreamRules:
    - regex: ^(.+).dragonfly-local.c3.zone:7000$
      host: $group1.myregistry.com
      scheme: https
  tls:
    certPath: /tls/tls.crt
    keyPath: /tls/tls.key
    caPath: /tls/ca.crt
metrics:
  address: 0.0.0.0:3000
gc:
  disk:
    maxSize: 1TB
  interval: 20m
  layers:
    checkSHA: true
    maxAge: 1h
    maxUnused: 30m
  manifests:
    maxAge: 10m
    maxUnused: 5m
`

func parse(t *testing.T, text string) (cacheconfig.Cache, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return cacheconfig.Load(path)
}

// The original's example is a configuration of this program, and its values are the
// defaults, but for what names a site and the listener, which is on loopback.
func TestOriginalsExample(t *testing.T) {
	got, err := parse(t, example)
	if err != nil {
		t.Fatal(err)
	}
	want := cacheconfig.Default()
	if want.Server.Address != "127.0.0.1:7000" {
		t.Errorf("default listener %s", want.Server.Address)
	}
	want.Server.Address = "0.0.0.0:7000"
	want.Server.DefaultBackend = cacheconfig.Backend{Host: "myregistry.com", Scheme: "https"}
	want.Server.UpstreamRules = []cacheconfig.Rule{{
		Regex: `^(.+).dragonfly-local.c3.zone:7000$`, Host: "$group1.myregistry.com", Scheme: "https",
	}}
	want.Server.TLS = cacheconfig.TLS{CertPath: "/tls/tls.crt", KeyPath: "/tls/tls.key", CAPath: "/tls/ca.crt"}
	a, _ := got.Text()
	b, _ := want.Text()
	if a != b {
		t.Errorf("the example is\n%s\nand the defaults with its site are\n%s", a, b)
	}
	if got.GC.Disk.MaxSize != 1e12 || time.Duration(got.GC.Layers.MaxUnused) != 30*time.Minute || got.GC.Layers.MaxAge != got.GC.Manifests.MaxAge*6 {
		t.Errorf("read %+v", got.GC)
	}
}

func TestEmptyFilesGiveDefaults(t *testing.T) {
	want, _ := cacheconfig.Default().Text()
	for _, text := range []string{"", "# nothing\n", "---\n", "server:\ngc:\n  layers:\n", "{}"} {
		c, err := parse(t, text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got, _ := c.Text(); got != want {
			t.Errorf("%q gives\n%s", text, got)
		}
	}
}

func TestPrintedTextLoads(t *testing.T) {
	c, err := parse(t, example)
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.Text()
	if err != nil {
		t.Fatal(err)
	}
	again, err := parse(t, text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if got, _ := again.Text(); got != text {
		t.Errorf("printed and read again it is\n%s\nnot\n%s", got, text)
	}
	for line := range strings.Lines(text) {
		if len(line) > 90 {
			t.Errorf("line of %d bytes: %s", len(line), line)
		}
	}
}

// Every key says what it is for.
func TestEveryKeyHasAComment(t *testing.T) {
	text, err := cacheconfig.Default().Text()
	if err != nil {
		t.Fatal(err)
	}
	// Keys of a level that say it by their name.
	plain := map[string]bool{"server": true, "permission": true, "fill": true, "warm": true, "metrics": true, "gc": true,
		"disk": true, "accessLog": true, "log": true}
	before := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if key, _, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, "#") && !plain[key] && !strings.HasPrefix(before, "#") {
			t.Errorf("key %s has no comment", key)
		}
		before = line
	}
}

func TestErrorsNameKeyAndLine(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"dataPaht: /x\n", `line 1: unknown key "dataPaht"`},
		{"server:\n  workers: 3\n  worker: 3\n", `line 3: unknown key "server.worker"`},
		{"gc:\n  layers:\n    checksha: true\n", `line 3: unknown key "gc.layers.checksha"`},
		{"gc:\n  manifests:\n    checkSHA: true\n", `line 3: unknown key "gc.manifests.checkSHA"`},
		{"server:\n  upstreamRules:\n    - regexp: a\n", `line 3: unknown key "server.upstreamRules.regexp"`},
		{"server:\n  registries:\n    ghcr.io:\n      hosts: x\n", `line 4: unknown key "server.registries.ghcr.io.hosts"`},
		{"a: 1\nserver:\n  b: 2\n", `line 3: unknown key "server.b"`},
		{"gc:\n  disk:\n    maxSize: many\n", `line 3: gc.disk.maxSize: "many" is not a size`},
		{"gc:\n  disk:\n    maxSize: [1]\n", "line 3: gc.disk.maxSize: not a single value"},
		{"gc:\n  disk:\n    maxSize: 9999999999TB\n", "too large"},
		{"gc:\n  interval: 20\n", `line 2: gc.interval: "20" is not a duration`},
		{"gc:\n  interval: -20m\n", "is not a duration"},
		{"server:\n  workers: ten\n", "line 2"},
		{"server:\n  workers: 1\n  workers: 2\n", "already defined"},
		{"server: [\n", "line "},
		{"dataPath: /a\n---\ndataPath: /b\n", "more than one document"},
		{"x: &a {workers: 1}\nserver: *a\n", "aliases"},
		{"dataPath: cache\n", "dataPath"},
		{"server:\n  workers: 0\n", "server.workers"},
		{"server:\n  streamers: -1\n", "server.streamers"},
		{"server:\n  upstreamTimeout: 0s\n", "server.upstreamTimeout"},
		{"server:\n  timeout: 0s\n", "server.timeout"},
		{"server:\n  address: \":\"\n  defaultBackend:\n    scheme: ftp\n", "server.defaultBackend.scheme"},
		{"server:\n  address: localhost\n", "server.address"},
		{"server:\n  upstreamRules:\n    - regex: a\n", "server.upstreamRules[0]"},
		{"server:\n  upstreamRules:\n    - {regex: a, host: b, scheme: s}\n", "server.upstreamRules[0].scheme"},
		{"server:\n  registries: {ghcr.io: {scheme: s}}\n", "server.registries"},
		{"server:\n  allowAddresses: [10.0.0.0]\n  tls: {certPath: a}\n", "server.tls"},
		{"server:\n  allowAddresses: [ten]\n", "server.allowAddresses"},
		{"server:\n  tls: {clientCAPath: a}\n", "server.tls.clientCAPath"},
		{"permission:\n  policy: open\n", "permission.policy"},
		{"permission:\n  policy: stale-if-error\n  staleFor: 0s\n", "permission.staleFor"},
		{"warm:\n  images: 0\n", "warm.images"},
		{"metrics:\n  address: \"3000\"\n", "metrics.address"},
		{"gc:\n  disk: {maxSize: 1MB}\n", "gc.disk.maxSize"},
		{"gc:\n  interval: 0s\n", "gc.interval"},
		{"gc:\n  policy: mru\n", "gc.policy"},
		{"gc:\n  scrubRate: 0\n", "gc.scrubRate"},
		{"gc:\n  grace: 0s\n", "gc.grace"},
		{"accessLog:\n  format: combined\n", "accessLog.format"},
		{"accessLog:\n  path: log\n", "accessLog.path"},
		{"log:\n  level: loud\n", "log.level"},
		{"log:\n  format: xml\n", "log.format"},
	} {
		_, err := parse(t, c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want an error with %q", c.text, err, c.want)
		}
	}
}

// Each policy there is can be asked for by name.
func TestPolicies(t *testing.T) {
	for _, name := range policy.Names() {
		c, err := parse(t, "dataPath: /a\ngc:\n  policy: "+name+"\n")
		if err != nil || c.GC.Policy != name {
			t.Errorf("policy %s is read as %q, %v", name, c.GC.Policy, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	text, _ := cacheconfig.Default().Text()
	f.Add(text)
	f.Add(example)
	f.Add("gc: {disk: {maxSize: 1Ki}}\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := cacheconfig.Parse([]byte(text))
		if err != nil || c.Validate() != nil {
			return
		}
		printed, err := c.Text()
		if err != nil {
			t.Fatal(err)
		}
		again, err := cacheconfig.Parse([]byte(printed))
		if err != nil {
			t.Fatalf("%v\n%s", err, printed)
		}
		if second, _ := again.Text(); second != printed {
			t.Errorf("%s\nbecame\n%s", printed, second)
		}
	})
}

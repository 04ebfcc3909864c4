package replayer_test

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/replayconfig"
	"github.com/reprise-containers/reprise/cmd/internal/replayer"
)

// replayed returns what a run of a trace against a server that has everything prints.
func replayed(t *testing.T, text string, change func(*replayconfig.Config)) (string, error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("{}")) }))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	path := filepath.Join(dir, "trace")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := replayconfig.Default()
	cfg.Registry = []string{server.URL}
	cfg.Trace.Traces, cfg.Trace.Output = []string{path}, filepath.Join(dir, "results.json")
	change(&cfg)
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err := (&replayer.Replayer{Config: cfg, Out: &out}).Run(t.Context())
	return out.String(), err
}

const twoPings = `{"http.request.method":"GET","http.request.uri":"v2","timestamp":"2017-06-20T00:00:00.000Z","http.response.written":2}
{"http.request.method":"GET","http.request.uri":"v2","timestamp":"2017-06-20T00:00:00.001Z","http.response.written":2}
`

// What of a trace is not sent is told, and that nothing is, is an error.
func TestNothingIsLeftOutInSilence(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "map.json")
	if err := os.WriteFile(nowhere, []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text string
		change     func(*replayconfig.Config)
		err, out   string
	}{
		{"all is well", twoPings, func(*replayconfig.Config) {}, "", "Successful Requests: 2"},
		{"a map of another trace", "v2/a/manifests/x\n", func(c *replayconfig.Config) { c.Warmup.Output = nowhere }, "nothing was sent", "1 requests of the trace were not sent"},
		{"nothing to send", `{"http.request.method":"DELETE","http.request.uri":"v2/a/manifests/x"}`, func(*replayconfig.Config) {}, "nothing was sent", "their kind is not replayed"},
		{"bad records", "what\n" + twoPings, func(*replayconfig.Config) {}, "not a JSON array", ""},
		{"bad records are skipped", twoPings + "{bad}\n", func(c *replayconfig.Config) { c.Trace.SkipBad = true }, "", "1 records of the trace were skipped"},
		{"no times", "v2\nv2\n", func(*replayconfig.Config) {}, "run.rate", ""},
		{"no times, but a rate", "v2\nv2\n", func(c *replayconfig.Config) { c.Run.Rate = 1000 }, "", "Successful Requests: 2"},
		{"a rate in a closed loop", twoPings, func(c *replayconfig.Config) { c.ClientInfo.Wait, c.Run.Rate = new(bool), 5 }, "", "run.rate and run.ramp have no effect"},
		{"what the original took", twoPings + `{"http.request.method":"GET","http.request.uri":"v2/a/manifests/x","timestamp":"2017-06-20T00:00:00.002Z","http.response.written":2}`,
			func(c *replayconfig.Config) { c.Trace.Compat, c.Warmup.Output = true, nowhere }, "", "2 requests of the trace are not of those that the original took"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := replayed(t, c.text, c.change)
			// Of what is pushed in compat, this server does not say where to.
			if c.err == "" && err != nil && !strings.Contains(err.Error(), "requests failed") || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) || !strings.Contains(out, c.out) {
				t.Errorf("%v, want %q and %q in\n%s", err, c.err, c.out, out)
			}
		})
	}
}

// Where the original sent as fast as it could, because nothing said that it should
// wait, compat does so: of two requests an hour apart both are sent.
func TestCompatWaitsOnlyIfTold(t *testing.T) {
	none := filepath.Join(t.TempDir(), "map.json")
	if err := os.WriteFile(none, []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	hour := strings.ReplaceAll(strings.Replace(twoPings, "00:00:00.001", "01:00:00.000", 1), `"v2"`, `"v2/a/blobs/x"`)
	yes, no := true, false
	for wait, want := range map[*bool]string{nil: "Failed Requests: 2", &no: "Failed Requests: 2", &yes: "Failed Requests: 1"} {
		// Failed, as this server does not say where to push to.
		out, err := replayed(t, hour, func(c *replayconfig.Config) {
			c.Trace.Compat, c.Warmup.Output, c.ClientInfo.Wait = true, none, wait
			c.Run.For = replayconfig.Duration(time.Minute)
		})
		if !errors.Is(err, replayer.ErrFailed) || !strings.Contains(out, want) {
			t.Errorf("wait %v: %v, want %q in\n%s", wait, err, want, out)
		}
	}
}

// A file that should have a secret and is empty is not the same as no secret.
func TestEmptySecrets(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*replayconfig.Config){
		"password": func(c *replayconfig.Config) {
			c.Access = []replayconfig.Access{{Registry: c.Registry[0], Username: "u", PasswordFile: empty}}
		},
		"token": func(c *replayconfig.Config) {
			c.Access = []replayconfig.Access{{Registry: c.Registry[0], TokenFile: empty}}
		},
		"authorities": func(c *replayconfig.Config) {
			c.Access = []replayconfig.Access{{Registry: c.Registry[0], CA: empty}}
		},
		"secret of clients": func(c *replayconfig.Config) {
			c.ClientInfo.ClientList, c.Cluster.SecretFile = []string{"127.0.0.1:1"}, empty
		},
	} {
		if _, err := replayed(t, twoPings, change); err == nil || !strings.Contains(err.Error(), "nothing in "+empty) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What cannot be written at the end is an error before anything is done.
func TestUnwritable(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer server.Close()
	for _, path := range []string{filepath.Join(dir, "none", "file"), filepath.Join(file, "file"), dir} {
		for name, try := range map[string]func(*replayconfig.Config, *replayer.Replayer) error{
			"run": func(c *replayconfig.Config, p *replayer.Replayer) error {
				c.Report.HTML = path
				p.Config = *c
				return p.Run(t.Context())
			},
			"warmup": func(c *replayconfig.Config, p *replayer.Replayer) error {
				c.Warmup.Output = path
				p.Config = *c
				return p.Warmup(t.Context())
			},
			"simulate": func(c *replayconfig.Config, p *replayer.Replayer) error {
				c.Simulate.Report.JSON = path
				p.Config = *c
				return p.Simulate(t.Context())
			},
		} {
			c := replayconfig.Default()
			trace := filepath.Join(dir, "trace")
			if err := os.WriteFile(trace, []byte(twoPings), 0o600); err != nil {
				t.Fatal(err)
			}
			c.Trace.Traces, c.Trace.Output, c.Registry = []string{trace}, filepath.Join(dir, "results"), []string{server.URL}
			var out bytes.Buffer
			err := try(&c, &replayer.Replayer{Out: &out})
			if err == nil || !strings.Contains(err.Error(), path) || asked || out.Len() > 0 {
				t.Errorf("%s to %s: %v, the registry was asked: %t, printed: %s", name, path, err, asked, &out)
			}
		}
	}
	if all, _ := os.ReadDir(dir); len(all) > 3 { // file, trace, and perhaps results
		t.Errorf("there are %v", all)
	}
}

// However a run ends, it leaves no file of the trace open.
func TestTracesAreClosed(t *testing.T) {
	open := func() (n int) {
		all, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range all {
			if to, err := os.Readlink(fd); err == nil && filepath.Base(to) == "trace" {
				n++
			}
		}
		return n
	}
	many := strings.Repeat(twoPings, 20_000)
	for name, change := range map[string]func(*replayconfig.Config){
		"early":        func(c *replayconfig.Config) { c.Run.Rate, c.Run.For = 1000, replayconfig.Duration(5e6) },
		"no client":    func(c *replayconfig.Config) { c.ClientInfo.ClientList, c.Cluster.CA = []string{"127.0.0.1:1"}, "none" },
		"no results":   func(c *replayconfig.Config) { c.Trace.Output = filepath.Join(c.Trace.Output, "none") },
		"no metrics":   func(c *replayconfig.Config) { c.Report.Metrics = "256.0.0.1:1" },
		"bad schedule": func(c *replayconfig.Config) { c.Run.Poisson = true },
	} {
		_, err := replayed(t, many, change)
		if name != "early" && err == nil {
			t.Errorf("%s: no error", name)
		}
		if n := open(); n != 0 {
			t.Errorf("%s: %v: %d files are open", name, err, n)
		}
	}
}

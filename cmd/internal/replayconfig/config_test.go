package replayconfig_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cmd/internal/replayconfig"
)

// original has every key of the original replayer, as its users write them.
const original = `
client_info: # for run
    client_list:
        - localhost:8081
        - localhost:8082
    port: 8080
    threads: 100
    wait: true
    route: true
verbose: true
trace:
    location: /data/dal09
    traces:
        - prod-dal09-logstash-2017.08.01-0.json
    limit:
        type: requests
        amount: 100
    output: results.json
registry:
    - localhost:5005
warmup:
    output: interm.json
    threads: 100
    random: true
simulate:
    name: cache.py
    args:
        cache_size: 8
`

func parse(t *testing.T, text string) (replayconfig.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return replayconfig.Load(path)
}

// A configuration of the original is one for every mode.
func TestOriginal(t *testing.T) {
	c, err := parse(t, original)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range replayconfig.Modes {
		if err := c.For(m); err != nil {
			t.Errorf("%s: %v", m, err)
		}
	}
	if len(c.ClientInfo.ClientList) != 2 || c.ClientInfo.Threads != 100 || !c.ClientInfo.Route || c.Closed() || !c.Paced() {
		t.Errorf("%+v", c.ClientInfo)
	}
	if c.Trace.Limit == nil || c.Trace.Limit.Type != "requests" || c.Trace.Limit.Amount != 100 || c.Trace.Output != "results.json" {
		t.Errorf("%+v", c.Trace)
	}
	if c.Warmup.Random == nil || !*c.Warmup.Random || c.Warmup.Output != "interm.json" || c.Warmup.Threads != 100 {
		t.Errorf("%+v", c.Warmup)
	}
	if c.Simulate.Name != "cache.py" || !reflect.DeepEqual(c.Simulate.Args, map[string]any{"cache_size": 8}) {
		t.Errorf("%+v", c.Simulate)
	}
}

// Keys whose values are left out are as if they were not there.
func TestEmptyValues(t *testing.T) {
	c, err := parse(t, "client_info:\ntrace:\n  traces: [a]\n  limit:\nregistry: [b]\nsimulate:\n  args:\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.Trace.Limit != nil || c.Simulate.Args != nil || c.Closed() || c.ClientInfo.Threads != 1 || c.For(replayconfig.ModeRun) != nil {
		t.Errorf("%+v", c)
	}
}

func TestErrorsNameKeyAndLine(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"client_info: {client_lists: [a]}", `line 1: unknown key "client_info.client_lists"`},
		{"trace:\n  limit: {type: hours, amount: 1}", "trace.limit.type"},
		{"trace:\n  limit: {type: seconds}", "trace.limit.amount"},
		{"client_info: {threads: many}", "line 1"},
		{"client_info: {threads: 0}", "client_info.threads"},
		{"client_info: {client_list: [localhost]}", "client_info.client_list[0]"},
		{"access: [{registry: a}]", "access[0].registry"},
		{"registry: [a]\naccess: [{registry: a, password: x}]", "access[0].username"},
		{"warmup: {dedupe: 2}", "warmup.dedupe"},
		{"run: {speed: 0}", "run.speed"},
		{"run: {uploads: some}", "run.uploads"},
		{"run: {pick: best}", "run.pick"},
		{"cluster: {secret: a, secret_file: b}", "cluster: secret"},
		{"simulate: {key: name}", "simulate.key"},
		{"simulate: {prefetch: {identity: name}}", "simulate.prefetch.identity"},
		{"simulate: {cluster: {replica: [1]}}", `line 1: unknown key "simulate.cluster.replica"`},
		{"simulate: {cluster: {upstream: {rate: 1MB}}}", `unknown key "simulate.cluster.upstream.rate"`},
		{"simulate: {cluster: {replicas: [1, 0]}}", "simulate.cluster.replicas"},
		{"simulate: {cluster: {replicas: [20000]}}", "simulate.cluster.replicas"},
		{"simulate: {cluster: {spread: even}}", "simulate.cluster.spread"},
		{"simulate: {cluster: {policy: belady}}", "simulate.cluster.policy"},
		{"simulate: {cluster: {rate: -1}}", "simulate.cluster.rate"},
		{"simulate: {cluster: {lease_ttl: 0s}}", "simulate.cluster.lease_ttl"},
		{"simulate: {cluster: {beat: 0s}}", "simulate.cluster.beat"},
		{"report: {metrics: here}", "report.metrics"},
		{"generate: {requests: 0}", "generate.requests"},
		{"registry: ['']", "registry[0]"},
		{"registry: [a, 'ftp://b']", "registry[1]"},
		{"registry: ['b?c=d']", "registry[0]"},
		{"simulate: {policies: [lru, best]}", "simulate.policies"},
	} {
		if _, err := parse(t, c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want an error with %q", c.text, err, c.want)
		}
	}
}

// A registry whose name has a password in it is refused, and the password is not told.
func TestPasswordsInNames(t *testing.T) {
	for _, name := range []string{"http://user:sekret@host", "user:sekret@host:5000", "https://user:sekret@host:port", "user:sekret%zz@host"} {
		_, err := parse(t, "registry: ['"+name+"']")
		if err == nil || !strings.Contains(err.Error(), "registry[0]") || strings.Contains(err.Error(), "sekret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A mode says what it needs and nothing else.
func TestNeeds(t *testing.T) {
	for text, want := range map[string]map[replayconfig.Mode]string{
		"{}":                   {"warmup": "trace.traces", "run": "trace.traces", "simulate": "trace.traces"},
		"trace: {traces: [a]}": {"warmup": "registry", "run": "registry", "simulate": ""},
		"trace: {traces: ['-']}\nregistry: [b]\nrun: {loop: 2}": {"run": "run.loop", "simulate": ""},
		"trace: {traces: [a]}\nregistry: [b]":                   {"warmup": "warmup.output", "run": "", "simulate": ""},
	} {
		c, err := parse(t, text)
		if err != nil {
			t.Fatal(err)
		}
		for mode, key := range want {
			err := c.For(mode)
			if key == "" && err != nil || key != "" && (err == nil || !strings.Contains(err.Error(), key)) {
				t.Errorf("%q, %s: %v, want one about %q", text, mode, err, key)
			}
		}
	}
}

// What is printed is what the defaults are, and every key is explained.
func TestPrinted(t *testing.T) {
	text, err := replayconfig.Default().Text()
	if err != nil {
		t.Fatal(err)
	}
	c, err := replayconfig.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if again, err := c.Text(); err != nil || again != text {
		t.Errorf("%s\nbecame\n%s", text, again)
	}
	explained(t, reflect.TypeFor[replayconfig.Config](), "")
}

func explained(t *testing.T, of reflect.Type, key string) {
	for _, f := range reflect.VisibleFields(of) {
		name := key + f.Tag.Get("yaml")
		inner := f.Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			explained(t, inner, name+".")
		} else if f.Tag.Get("comment") == "" && f.Tag.Get("yaml") != "" && !strings.Contains("name username password password_file token_file type amount memory disk requests seed rate clients csv latency bandwidth", strings.TrimPrefix(name, key)) {
			t.Errorf("%s is not explained", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	text, _ := replayconfig.Default().Text()
	f.Add(text)
	f.Add(original)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := replayconfig.Parse([]byte(text))
		if err != nil || c.Validate() != nil {
			return
		}
		printed, err := c.Text()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := replayconfig.Parse([]byte(printed)); err != nil {
			t.Fatalf("%v\n%s", err, printed)
		}
	})
}

package replayer_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/cache/cachetest/testbed"
)

// TestWrongSecret lets a master with another secret than the client's, and one with
// none, meet a client. Nothing is sent, both sides say why, and the client serves the
// master that has it, whose secret is in a file.
func TestWrongSecret(t *testing.T) {
	t.Parallel()
	const right, wrong = "open-sesame-1f3a", "open-barley-77c0"
	w := warmed(t, 40, time.Millisecond)
	client, a := w.client("--secret", right)
	w.with("client_info", values{"client_list": []string{a}})
	for _, c := range []values{{"secret": wrong}, {}} {
		p := w.with("cluster", c).run(1, "run", "-i", "config.yaml")
		says(t, &p.errs, a, "secret")
		if n := strings.Count(p.errs.String(), a); n != 1 {
			t.Errorf("the client is named %d times", n)
		}
		if rs := w.results("results.json"); len(rs) != 0 {
			t.Errorf("%d results", len(rs))
		}
	}
	says(t, &client.errs, "secret")
	w.write("secret", right+"\n")
	w.with("cluster", values{"secret_file": filepath.Join(w.dir, "secret"), "heartbeat": "10s", "start_in": "2s"}).nextMaster(a)
	for _, h := range []string{client.errs.String(), client.out.String()} {
		if strings.Contains(h, right) || strings.Contains(h, wrong) {
			t.Error("a secret is in what the client says")
		}
	}
}

// TestOpenClient has a client without a secret listen for other machines, which it
// refuses to.
func TestOpenClient(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	port, err := testbed.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	says(t, &d.run(1, "client", "-i", "0.0.0.0", "-p", port).errs, "secret")
}

// TestAbsentClient has one of two clients not be there.
func TestAbsentClient(t *testing.T) {
	t.Parallel()
	w := warmed(t, 40, time.Millisecond)
	_, a := w.client()
	port, err := testbed.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	absent := net.JoinHostPort("127.0.0.1", port)
	w.with("client_info", values{"client_list": []string{a, absent}})
	p := w.run(1, "run", "-i", "config.yaml")
	says(t, &p.errs, absent)
	if rs := w.results("results.json"); len(rs) != 0 {
		t.Errorf("%d results of a run that could not begin", len(rs))
	}
	w.nextMaster(a)
}

// reserved returns a port that refuses connections, and that nobody else gets until
// release is called: it is bound, and nothing listens on it.
func reserved(t *testing.T) (port string, release func()) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { unix.Close(fd) })
	t.Cleanup(release)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(at.(*unix.SockaddrInet4).Port), release
}

// TestLateClient has one of two clients begin to listen when the master waits for it
// already, for longer than a peer may be silent.
func TestLateClient(t *testing.T) {
	t.Parallel()
	w := warmed(t, 40, time.Millisecond)
	_, a := w.client()
	port, release := reserved(t)
	w.with("client_info", values{"client_list": []string{a, net.JoinHostPort("127.0.0.1", port)}})
	p := w.start("run", "-i", "config.yaml")
	time.Sleep(2 * time.Second)
	release()
	if w.clientAt(port) == nil {
		t.Fatal("the late client did not start")
	}
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// TestBusyClient has a second master come while the first one's job lasts.
func TestBusyClient(t *testing.T) {
	t.Parallel()
	w := warmed(t, 400, 5*time.Millisecond)
	_, a := w.client()
	w.with("client_info", values{"client_list": []string{a}}).with("run", values{"loop": 0})
	first := w.start("run", "-i", "config.yaml")
	w.sent(first, 10)
	second := newDesk(t)
	second.write("trace.json", string(w.read("trace.json")))
	second.write("interm.json", string(w.read("interm.json")))
	second.configure(w.config)
	for range 5 {
		p := second.run(1, "run", "-i", "config.yaml")
		if says(t, &p.errs, a); strings.Contains(p.errs.String(), "busy") {
			_, before := failures(w.sofar())
			w.sent(first, before) // it was not disturbed
			return
		}
		says(t, &p.errs, "nothing was heard") // a machine that is slow
	}
	t.Error("the client is not said to be busy")
}

// TestPlugins has plugins fail in each way there is, and work.
func TestPlugins(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write("trace.json", array(t, pulls(16, time.Millisecond).records))
	for _, c := range []struct {
		file, text string
		args       values
		status     int
		out, errs  []string
	}{
		{file: "raises.py", text: "def init(requests):\n    print('begun')\n    {}['missing']\n", status: 1, out: []string{"begun"}, errs: []string{"KeyError: 'missing'", "raises.py", "line 3"}},
		{file: "exits.py", text: "import sys\ndef init(requests, args):\n    sys.exit(7)\n", args: values{"a": 1}, status: 1, errs: []string{"exits.py"}},
		{file: "killed.py", text: "import os\ndef init(requests):\n    os.kill(os.getpid(), 9)\n", status: 1, errs: []string{"killed"}},
		{file: "syntax.py", text: "def init(requests:\n", status: 1, errs: []string{"SyntaxError"}},
		{file: "python2.py", text: "def init(requests):\n    print 'hello'\n", status: 1, errs: []string{"SyntaxError", "Python 2"}},
		{file: "empty.py", text: "x = 1\n", status: 1, errs: []string{"init"}},
		{file: "arguments.py", text: "def init(requests):\n    pass\n", args: values{"a": 1}, status: 1, errs: []string{"TypeError"}},
		{file: "works.py", text: "def init(requests, args):\n    print(len(requests), args['a'])\n", args: values{"a": []int{1, 2}}, out: []string{"12 [1, 2]"}},
		{file: "fails.star", text: "def init(requests):\n    fail('not today')\n", status: 1, errs: []string{"not today", "fails.star"}},
		{file: "works.star", text: "def init(requests):\n    print(len(requests))\n", out: []string{"12"}},
	} {
		t.Run(c.file, func(t *testing.T) {
			d.write(c.file, c.text)
			simulate := values{"name": c.file}
			if c.args != nil {
				simulate["args"] = c.args
			}
			d.configure(values{"trace": values{"traces": []string{"trace.json"}}, "simulate": simulate})
			p := d.run(c.status, "simulate", "-i", "config.yaml")
			says(t, &p.out, c.out...)
			says(t, &p.errs, c.errs...)
		})
	}
}

// TestMistakes makes mistakes in the configuration and in the files it names. Each is
// said with its place.
func TestMistakes(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	good := array(t, pulls(8, time.Millisecond).records)
	d.write("trace.json", good)
	d.write("cut.json", good[:len(good)/2])
	d.write("map.json", `{"v2/a/b/blobs/c": "good"}`)
	d.write("zeros.json", `{}`)
	port, err := testbed.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	const traces = "trace: {traces: [trace.json]}\n"
	registry := fmt.Sprintf("registry: [127.0.0.1:%s]\n", port)
	for name, c := range map[string]struct {
		mode, config string
		errs         []string
	}{
		"unknown key":         {"run", traces + registry + "warmup:\n  output: map.json\n  thraeds: 4\n", []string{"config.yaml", "line 5", "warmup.thraeds"}},
		"unknown top key":     {"simulate", traces + "simulation: {}\n", []string{"line 2", "simulation"}},
		"wrong type":          {"run", traces + registry + "client_info:\n  threads: many\n", []string{"line 4", "threads"}},
		"wrong limit":         {"simulate", "trace:\n  traces: [trace.json]\n  limit: {type: minutes, amount: 3}\n", []string{"trace.limit.type", "minutes"}},
		"no trace":            {"simulate", registry, []string{"trace.traces"}},
		"absent trace":        {"simulate", "trace: {traces: [absent.json]}\n", []string{"absent.json"}},
		"half a trace":        {"simulate", "trace: {traces: [cut.json]}\n", []string{"cut.json"}},
		"no registry":         {"run", traces, []string{"registry"}},
		"no map":              {"run", traces + registry + "warmup: {output: absent.json}\n", []string{"absent.json", "warmup"}},
		"a map with nonsense": {"run", traces + registry + "warmup: {output: map.json}\n", []string{"map.json", "v2/a/b/blobs/c"}},
		"no interim map":      {"warmup", traces + registry, []string{"warmup.output"}},
		"registry away":       {"warmup", traces + registry + "warmup: {output: new.json}\n", []string{"refused"}},
		"absent plugin":       {"simulate", traces + "simulate: {name: absent.py}\n", []string{"absent.py"}},
		"no such mode":        {"-c match", traces, []string{"match", "warmup, run or simulate"}},
		"not yaml":            {"run", "trace: [\n", []string{"config.yaml"}},
		"results nowhere":     {"run", "trace: {traces: [trace.json], output: nowhere/results.json}\n" + registry, []string{"nowhere/results.json"}},
		"metrics nowhere":     {"run", traces + registry + "report: {metrics: '192.0.2.1:9'}\n", []string{"metrics"}},
	} {
		t.Run(name, func(t *testing.T) {
			d.write("config.yaml", c.config)
			says(t, &d.run(1, append(strings.Fields(c.mode), "-i", "config.yaml")...).errs, c.errs...)
		})
	}
	if _, err := os.Stat(filepath.Join(d.dir, "new.json")); err == nil {
		for uri, v := range d.interim("new.json") {
			t.Errorf("the registry is away, and %s is %s", uri, v)
		}
	}
	for _, args := range [][]string{
		{}, {"run"}, {"run", "-i", "absent.yaml"}, {"nonsense"}, {"run", "-i", "config.yaml", "more"}, {"report"}, {"report", "config.yaml"},
		{"ranges"}, {"generate", "-n", "0"}, {"client", "--nonsense"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) { d.run(1, args...) })
	}
}

package plugin_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/plugin"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// asked is a trace with what plugins are not given.
func asked() trace.Reader {
	return trace.Of(
		trace.Request{Method: "GET", URI: "v2", Size: 2},
		trace.Request{Method: "GET", URI: "v2/a/b/blobs/x", Size: 100, Client: "c", Delay: 1500 * time.Millisecond, Duration: time.Second},
		trace.Request{Method: "HEAD", URI: "v2/a/b/blobs/x", Size: 100},
		trace.Request{Method: "GET", URI: "v2/a/b/blobs/y", Size: 0},
		trace.Request{Method: "PUT", URI: "v2/a/b/blobs/z", Size: 7, Delay: 4 * time.Second},
	)
}

// written writes a plugin to a file. One in Python needs python3, which root has or can
// have (make tools).
func written(t testing.TB, name, text string) string {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil && filepath.Ext(name) != ".star" {
		if os.Geteuid() == 0 {
			t.Fatal(err)
		}
		t.Skip("Python plugins are tested where there is python3: ", err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a plugin of a text.
func run(t *testing.T, name, text string, args map[string]any) (string, error) {
	t.Helper()
	var out, errs bytes.Buffer
	err := plugin.Run(t.Context(), written(t, name, text), asked(), args, &out, &errs)
	return out.String() + errs.String(), err
}

const both = `
def init(requests, args=None):
    print(len(requests), args)
    for r in requests:
        print(r["delay"], r["uri"], r["size"], r["method"], r["duration"], r["client"])
    r = requests[0]
    print(r["uri"].split("/")[-1], r["size"] * 2, [x["size"] for x in requests[::-1]], requests[-1].get("size"), len([k for k in r]))
`

// Both languages get the same.
func TestRequests(t *testing.T) {
	for _, name := range []string{"p.py", "p.star"} {
		for _, args := range []map[string]any{nil, {"cache_size": 8, "list": []any{1, 2.5, "x", true, nil}}} {
			t.Run(fmt.Sprint(name, args != nil), func(t *testing.T) {
				got, err := run(t, name, both, args)
				if err != nil {
					t.Fatal(err)
				}
				first := "2 None\n"
				if args != nil {
					first = `2 {`
				}
				const rest = "0.0 v2/a/b/blobs/x 100 GET 1.0 c\n2.5 v2/a/b/blobs/z 7 PUT 0.0 \nx 200 [7, 100] 7 6\n"
				if !strings.HasPrefix(got, first) || !strings.HasSuffix(got, rest) {
					t.Errorf("it printed\n%s", got)
				}
			})
		}
	}
}

// What goes wrong in a plugin is an error that says where.
func TestFailures(t *testing.T) {
	for _, c := range []struct{ name, text, want, said string }{
		{"p.py", "def init(requests):\n    raise ValueError('too small')\n", "ValueError: too small", "line 2"},
		{"p.py", "def init(requests):\n    print 'x'\n", "Python 2", "SyntaxError"},
		{"p.py", "def init(requests):\n    return xrange(3)\n", "Python 2", "NameError"},
		{"p.py", "import none_such\n", "none_such", "line 1"},
		{"p.py", "x = 1\n", "has no function init", ""},
		{"p.py", "import sys\ndef init(requests):\n    sys.exit(3)\n", "exit status 3", ""},
		{"p.star", "def init(requests):\n    fail('too small')\n", "too small", ""},
		{"p.star", "def init(requests):\n    return 1 +\n", "p.star:2", ""},
		{"p.star", "def f(n):\n    return f(n + 1)\ndef init(requests):\n    f(0)\n", "stack overflow", ""},
		{"p.py", "def f(n):\n    return f(n + 1)\ndef init(requests):\n    f(0)\n", "RecursionError", ""},
		{"p.star", "x = 1\n", "has no function init", ""},
		{"p.star", "def init(requests):\n    requests[0]['no']\n", "no", ""},
		{"p.star", "def init(requests):\n    requests.append(1)\n", "append", ""},
		{"p.star", "def init(requests):\n    requests[0].size = 1\n", "size", ""},
		{"p.star", "def init(requests):\n    requests[0]['size'] = 1\n", "request", ""},
		{"p.star", "def init(requests):\n    time.now()\n", "now", ""},
		{"p.star", "def f(n):\n    return f(n + 1)\ndef init(requests):\n    f(0)\n", "overflow", ""},
		{"p.star", "load('/etc/passwd', 'x')\ndef init(requests): pass\n", "load", ""},
	} {
		said, err := run(t, c.name, c.text, nil)
		if err != nil && len(err.Error()) > 4096 {
			t.Errorf("%s %q: an error of %d bytes", c.name, c.text, len(err.Error()))
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(said, c.said) {
			t.Errorf("%s %q: %v, want an error with %q; it said %q", c.name, c.text, err, c.want, said)
		}
		if err != nil && (len(err.Error()) > 4<<10 || strings.Contains(said, "importlib") || strings.Contains(said, "<string>")) {
			t.Errorf("%s %q says more than its writer wants to know: %v, %s", c.name, c.text, err, said)
		}
	}
	for _, name := range []string{"none.py", "none.star"} {
		if err := plugin.Run(t.Context(), filepath.Join(t.TempDir(), name), asked(), nil, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("a file that is not there: %v", err)
		}
	}
	t.Setenv("PATH", t.TempDir())
	path := filepath.Join(t.TempDir(), "p.py")
	os.WriteFile(path, nil, 0o600)
	if err := plugin.Run(t.Context(), path, asked(), nil, io.Discard, io.Discard); !errors.Is(err, plugin.ErrNoPython) {
		t.Errorf("without python3: %v", err)
	}
}

// A plugin beside its own modules finds them; what it reads of standard input is
// nothing.
func TestPythonModules(t *testing.T) {
	path := written(t, "p.py", "import sys, other\ndef init(requests):\n    print(other.value, repr(sys.stdin.read()))\n")
	os.WriteFile(filepath.Join(filepath.Dir(path), "other.py"), []byte("value = 42\n"), 0o600)
	var out bytes.Buffer
	if err := plugin.Run(t.Context(), path, asked(), nil, &out, &out); err != nil || out.String() != "42 ''\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// A plugin that never ends is ended.
func TestCancel(t *testing.T) {
	for name, text := range map[string]string{
		"p.py":   "def init(requests):\n    print('begun')\n    while True: pass\n",
		"p.star": "def init(requests):\n    print('begun')\n    while True: pass\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := written(t, name, text)
			ctx, cancel := context.WithCancelCause(t.Context())
			stopped := errors.New("stopped")
			err := plugin.Run(ctx, path, asked(), nil, writer(func([]byte) { cancel(stopped) }), io.Discard)
			if !errors.Is(err, stopped) {
				t.Errorf("%v", err)
			}
		})
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

// broken ends in the middle.
type broken struct{ n int }

var errBroken = errors.New("the disk is gone")

func (b *broken) Next() (trace.Request, error) {
	if b.n++; b.n > 10 {
		return trace.Request{}, errBroken
	}
	return trace.Request{Method: "GET", URI: "v2/a/blobs/x", Size: 1}, nil
}

// Half a trace is not simulated, and the error is why there is no more of it.
func TestBrokenTrace(t *testing.T) {
	for _, name := range []string{"p.star", "p.py"} {
		path := written(t, name, "def init(requests):\n    print('simulated')\n")
		var out bytes.Buffer
		if err := plugin.Run(t.Context(), path, &broken{}, nil, &out, &out); !errors.Is(err, errBroken) || out.Len() > 0 {
			t.Errorf("%s: %v, it printed %q", name, err, out.String())
		}
	}
}

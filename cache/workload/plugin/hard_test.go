package plugin_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/plugin"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// What a trace may have in its texts reaches both languages as it is.
func TestTexts(t *testing.T) {
	texts := []string{`a"b`, `a\b`, "a\tb\u2028c", "\u00e9\u4e16\U0001f433", "<&>", "a\x00b", "a\rb", "%s{}"}
	var requests []trace.Request
	var want strings.Builder
	for _, s := range texts {
		requests = append(requests, trace.Request{Method: "GET", URI: "v2/blobs/" + s, Client: s, Size: 1 << 53})
		fmt.Fprintln(&want, len([]rune("v2/blobs/"+s)), 1<<53, s == "<&>")
	}
	const text = "def size(s):\n    return len([c for c in LETTERS(s)])\ndef init(requests):\n    for r in requests:\n" +
		"        print(size(r['uri']), r['size'], str(r['client'] == '<&>').lower())\n"
	for name, letters := range map[string]string{"p.py": "s", "p.star": "s.codepoints()"} {
		var out bytes.Buffer
		path := written(t, name, strings.ReplaceAll(text, "LETTERS(s)", letters))
		text, _ := os.ReadFile(path)
		if name == "p.star" {
			os.WriteFile(path, bytes.ReplaceAll(text, []byte("str(r['client'] == '<&>').lower()"), []byte("'true' if r['client'] == '<&>' else 'false'")), 0o600)
		}
		if err := plugin.Run(t.Context(), path, trace.Of(requests...), nil, &out, &out); err != nil || out.String() != want.String() {
			t.Errorf("%s: %v\n%swant\n%s", name, err, out.String(), want.String())
		}
	}
}

// Args of any form that a configuration can have are the same in both languages,
// and may be longer than what a command line takes.
func TestArgs(t *testing.T) {
	args := map[string]any{
		"int": 8, "long": int64(1) << 60, "float": 2.5, "text": "x", "yes": true, "none": nil,
		"list": []any{1, map[string]any{"a": 1}}, "texts": []string{"a", "b"}, "small": uint8(3),
		"when": time.Date(2017, 6, 20, 0, 0, 0, 0, time.UTC), "wide": strings.Repeat("x", 300_000),
	}
	const text = `
def init(requests, args):
    print(sorted(args.keys()))
    print(args["int"] + 1, args["long"] + 1, args["float"] * 2, args["text"], args["yes"], args["none"])
    print(args["list"], args["texts"], args["small"], args["when"], len(args["wide"]))
`
	var said []string
	for _, name := range []string{"p.py", "p.star"} {
		var out bytes.Buffer
		if err := plugin.Run(t.Context(), written(t, name, text), asked(), args, &out, &out); err != nil {
			t.Fatalf("%s: %v, %s", name, err, out.String())
		}
		said = append(said, strings.ReplaceAll(out.String(), "'", `"`))
	}
	if said[0] != said[1] || !strings.Contains(said[0], "9 1152921504606846977 5.0 x True None\n") {
		t.Errorf("Python was given\n%sand Starlark\n%s", said[0], said[1])
	}
	for _, name := range []string{"p.py", "p.star"} {
		err := plugin.Run(t.Context(), written(t, name, text), asked(), map[string]any{"f": func() {}}, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "args") {
			t.Errorf("%s: args that have no form: %v", name, err)
		}
	}
}

// Modules of the folder where the program runs, or of the plugin's, do not stand in for
// those that the driver needs; a plugin's file may be named in any way.
func TestNames(t *testing.T) {
	dir := filepath.Dir(written(t, "json.py", "raise Exception('not this one')\n"))
	t.Chdir(dir)
	for _, name := range []string{"plugin", "plugin.v2.py", "traceback.py"} {
		os.WriteFile(name, []byte("def init(requests):\n    print(len(requests))\n"), 0o600)
		var out bytes.Buffer
		if err := plugin.Run(t.Context(), name, asked(), nil, &out, &out); err != nil || out.String() != "2\n" {
			t.Errorf("%s: %v, %s", name, err, out.String())
		}
	}
}

// A plugin that fails at once is not told a trace without end, one that reads standard
// input while it is loaded does not get the requests.
func TestEndlessTrace(t *testing.T) {
	for _, name := range []string{"p.py", "p.star"} {
		err := plugin.Run(t.Context(), written(t, name, "1 +\n"), endless{}, nil, io.Discard, io.Discard)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	path := written(t, "p.py", "import sys\ntext = sys.stdin.read()\ndef init(requests):\n    print(repr(text), len(requests))\n")
	var out bytes.Buffer
	if err := plugin.Run(t.Context(), path, asked(), nil, &out, &out); err != nil || out.String() != "'' 2\n" {
		t.Errorf("%v, %s", err, out.String())
	}
}

type endless struct{}

func (endless) Next() (trace.Request, error) {
	return trace.Request{Method: "GET", URI: "v2/a/blobs/x", Size: 1}, nil
}

// What a plugin started ends with it, and one that does not want to end is ended.
func TestCancelAll(t *testing.T) {
	const text = `
import os, signal, subprocess, time
def init(requests):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "1000"])
    print(os.getpid(), child.pid)
    while True: time.sleep(1)
`
	if testing.Short() {
		t.Skip("waits until a plugin is killed")
	}
	path := written(t, "p.py", text)
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	var said string
	err := plugin.Run(ctx, path, asked(), nil, writer(func(p []byte) {
		if said += string(p); strings.HasSuffix(said, "\n") {
			cancel(stopped)
		}
	}), io.Discard)
	if !errors.Is(err, stopped) {
		t.Error(err)
	}
	for _, field := range strings.Fields(said) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatalf("it said %q", said)
		}
		for alive(pid) { // until the kernel has done what it was told
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// alive reports whether a process runs: one that has ended and that nobody waited for
// does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

var errFull = errors.New("no space left")

// What cannot be printed is an error, and ends the plugin.
func TestOutputFails(t *testing.T) {
	for _, name := range []string{"p.py", "p.star"} {
		path := written(t, name, "def init(requests):\n    while True:\n        print('x')\n")
		if err := plugin.Run(t.Context(), path, asked(), nil, full{}, io.Discard); !errors.Is(err, errFull) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// FuzzStarlark runs any text: it ends, with an error or without.
func FuzzStarlark(f *testing.F) {
	for _, s := range []string{
		both, "def init(r):\n    print(sorted(r, key=lambda x: x.delay), dict(r[0]), r[0] == r[1], r[0].items())\n",
		"def init(r): print(r[::-2], r[1:], r[0].none)", "init = print", "init = 1", "def init(r): print(time.second * 2, math.pi, json.encode(dict(r[0])))",
		"def init(r):\n  while True: pass", "x = struct(a = 1)\ndef init(r): print(x, r[0] < r[1], r + r, r in r)", "def init(r): r[5]", "\x00", "init = dict",
	} {
		f.Add(s)
	}
	path := filepath.Join(f.TempDir(), "p.star")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_ = plugin.Run(ctx, path, asked(), map[string]any{"a": 1}, io.Discard, io.Discard)
	})
}

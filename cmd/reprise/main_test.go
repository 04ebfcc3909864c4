package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore/fusedev"
)

const vectors = "../../backstore/testdata/vectors/"

var update = flag.Bool("update", false, "rewrite the golden files")

// runAsMain in the environment makes the test binary the command itself.
const runAsMain = "REPRISE_TEST_RUN_AS_MAIN"

// TestMain lets the test binary be the command, and the processes that mounting
// starts.
func TestMain(m *testing.M) {
	if os.Getenv(runAsMain) != "" {
		main()
	}
	if code, ok := fusedev.Child(os.Args); ok {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// result is what a command printed and returned.
type result struct {
	out, err string
	code     int
}

// reprise runs a command line in this process.
func reprise(t *testing.T, args ...string) result {
	t.Helper()
	return repriseContext(t.Context(), args...)
}

func repriseContext(ctx context.Context, args ...string) result {
	var out, log bytes.Buffer
	app := newApp()
	app.Writer, app.ErrWriter = &out, &log
	code := exitCode(app.Run(ctx, append([]string{"reprise"}, args...)), &log)
	return result{out.String(), log.String(), code}
}

// golden compares got with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// chain3 is the arguments that name the three layers of the small chain.
func chain3(suffix string) []string {
	var args []string
	for _, l := range []string{"L0", "L1", "L2"} {
		args = append(args, vectors+"small-chain3/"+l+"."+suffix)
	}
	return args
}

// images returns the folder of golden images, and skips the test without it.
func images(t *testing.T) string {
	t.Helper()
	dir := "../../../shared/golden/images"
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no golden images")
	}
	return dir
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		part string
	}{
		{[]string{"inspect"}, "inspect needs an image"},
		{[]string{"check"}, "check needs an image"},
		{[]string{"inspect", "--colour", "x"}, "-colour"},
		{[]string{"dump", "x"}, "output"},
		{[]string{"mount", "x"}, "needs an image and a directory"},
		{[]string{"inspect", "--plain-http", "http://x/", "x"}, "not a host"},
	} {
		if r := reprise(t, c.args...); r.code != exitUsage || !strings.Contains(r.err, c.part) {
			t.Errorf("%q: %+v, want exit code %d and %q", c.args, r, exitUsage, c.part)
		}
	}
	for _, args := range [][]string{{"--help"}, {"--version"}, {"inspect", "--help"}, {"mount", "--help"}} {
		if r := reprise(t, args...); r.code != exitOK || r.out == "" {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

func TestFailures(t *testing.T) {
	empty := t.TempDir()
	for _, c := range []struct {
		args []string
		part string
	}{
		{[]string{"inspect", "./none"}, "no such file"},
		{[]string{"inspect", empty}, "not an OCI layout"},
		{[]string{"inspect", "main.go"}, "not an LSMT layer"},
		{[]string{"dump", "main.go", "-o", empty + "/x"}, "not an LSMT layer"},
	} {
		if r := reprise(t, c.args...); r.code != exitFailed || !strings.Contains(r.err, c.part) || r.out != "" {
			t.Errorf("%q: %+v, want %q", c.args, r, c.part)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := repriseContext(ctx, append([]string{"check"}, chain3("lz4-4k.tar")...)...); r.code != exitInterrupted {
		t.Errorf("interrupted: %+v", r)
	}
}

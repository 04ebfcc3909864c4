package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/cmd/internal/commit"
	"github.com/reprise-containers/reprise/cmd/internal/obdconv"
)

// parseObdconv returns what a command line of obdconv asks for.
func parseObdconv(t *testing.T, args ...string) (obdconv.Config, error) {
	t.Helper()
	var cfg obdconv.Config
	c := obdconvCommand()
	c.Action = func(_ context.Context, cmd *cli.Command) (err error) {
		cfg, err = obdconvConfig(cmd)
		return err
	}
	return cfg, c.Run(t.Context(), append([]string{"obdconv"}, args...))
}

// Upstream's flags and defaults.
func TestObdconvFlags(t *testing.T) {
	t.Setenv("CONTAINERD_SNAPSHOTTER", "")
	os.Unsetenv("CONTAINERD_SNAPSHOTTER")
	got, err := parseObdconv(t, "app:1", "app:2")
	if err != nil {
		t.Fatal(err)
	}
	if got.Source != "app:1" || got.Target != "app:2" || got.Snapshotter != "overlaybd" || got.FSType != "ext4" || got.VirtualSize != 64 ||
		got.Compression.Algorithm != 0 || got.Compression.BlockSize != 0 {
		t.Errorf("%+v", got)
	}
	got, err = parseObdconv(t, "--fstype", "xfs;nouuid,discard;-f -l size=4m", "--algorithm", "lz4", "--bs", "32", "--vsize", "10", "--snapshotter", "s",
		"--temp-dir", "/x", "--plain-http", "--user", "a:b", "--skip-verify", "--dbstr", "", "app:1", "app:2")
	if err != nil {
		t.Fatal(err)
	}
	if got.FSType != "xfs;nouuid,discard;-f -l size=4m" || got.VirtualSize != 10 || got.Snapshotter != "s" || got.TempDir != "/x" ||
		got.Compression.Algorithm != zfile.LZ4 || got.Compression.BlockSize != 32768 {
		t.Errorf("%+v", got)
	}
	for want, args := range map[string][]string{
		"name of":   {"app:1"},
		"reuse":     {"--dbstr", "user@tcp(db)/obd", "app:1", "app:2"},
		"lz4 nor":   {"--algorithm", "gzip", "app:1", "app:2"},
		"--bs 64":   {"--bs", "64", "app:1", "app:2"},
		"--vsize 0": {"--vsize", "0", "app:1", "app:2"},
	} {
		if _, err := parseObdconv(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

func TestCommitFlags(t *testing.T) {
	parse := func(args ...string) (cfg commit.Config, err error) {
		c := commitCommand()
		c.Action = func(_ context.Context, cmd *cli.Command) (err error) {
			cfg, err = commitConfig(cmd)
			return err
		}
		return cfg, c.Run(t.Context(), append([]string{"commit"}, args...))
	}
	got, err := parse("box", "app:2")
	if err != nil || got.Container != "box" || got.Name != "app:2" || got.Running || got.Compression != "gzip" || len(got.Changes) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = parse("-a", "A <a@b>", "-m", "why", "-c", `CMD ["a, b"]`, "--change", "ENV A=1", "--pause=false", "--compression", "zstd", "box", "app:2")
	if err != nil || got.Author != "A <a@b>" || got.Message != "why" || !got.Running || got.Compression != "zstd" || len(got.Changes) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, args := range [][]string{{"box"}, {"box", "app:2", "x"}, {"-c", "RUN x", "box", "app:2"}} {
		if _, err := parse(args...); err == nil {
			t.Errorf("%q is no error", args)
		}
	}
}

func TestPrintsOfMaking(t *testing.T) {
	d := digest.FromString("x")
	var out bytes.Buffer
	err := printObdconv(&out, &obdconv.Report{Name: "app:2", Target: d, Layers: []obdconv.Layer{
		{Source: d, SourceSize: 1024, Kept: true}, {Source: d, SourceSize: 2048, Digest: d, Size: 4096},
	}}, 1500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	for _, obd := range []bool{false, true} {
		r := &commit.Report{Name: "app:3", Target: d, Layer: ocispec.Descriptor{Digest: d, Size: 1024}, Overlaybd: obd}
		if err := printCommit(&out, r); err != nil {
			t.Fatal(err)
		}
	}
	s := short(d)
	want := `app:2@` + d.String() + `
SOURCE               SIZE     LAYER                SIZE
` + s + `  1.0 KiB  kept                 
` + s + `  2.0 KiB  ` + s + `  4.0 KiB
1 of 2 layers converted to 4.0 KiB in 1.5s
app:3@` + d.String() + `
layer ` + s + `: 1.0 KiB, an archive of files
app:3@` + d.String() + `
layer ` + s + `: 1.0 KiB, an overlaybd layer
`
	if out.String() != want {
		t.Errorf("printed\n%swant\n%s", out.String(), want)
	}
}

package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/push"
	"github.com/reprise-containers/reprise/cmd/internal/record"
	"github.com/reprise-containers/reprise/cmd/internal/transfer"
)

// parseRecord returns what a command line of record-trace asks for.
func parseRecord(t *testing.T, args ...string) (record.Config, error) {
	t.Helper()
	var cfg record.Config
	c := recordCommand()
	c.Action = func(_ context.Context, cmd *cli.Command) (err error) {
		cfg, err = recordConfig(cmd)
		return err
	}
	return cfg, c.Run(t.Context(), append([]string{"record-trace"}, args...))
}

// Upstream's flags and defaults.
func TestRecordFlags(t *testing.T) {
	t.Setenv("CONTAINERD_SNAPSHOTTER", "")
	os.Unsetenv("CONTAINERD_SNAPSHOTTER")
	got, err := parseRecord(t, "app:1", "app:2")
	if err != nil {
		t.Fatal(err)
	}
	if got.Old != "app:1" || got.New != "app:2" || len(got.Args) != 0 || got.Time != time.Minute || got.Dir != "/tmp/ctr-record-trace" ||
		got.Snapshotter != "overlaybd" || got.Runtime != "io.containerd.runc.v2" || got.PluginDir != "/opt/cni/bin/" ||
		got.HostNetwork || got.NoData || got.List != nil {
		t.Errorf("%+v", got)
	}
	list := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(list, []byte("/a b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err = parseRecord(t, "--time", "5", "--priority_list", list, "--working-dir", "/x", "--snapshotter", "s", "--runtime", "r",
		"--max-concurrent-downloads", "3", "--disable-network-isolation", "--cni-plugin-dir", "/cni", "--no-data", "app:1", "app:2", "sh", "--time", "7")
	if err != nil {
		t.Fatal(err)
	}
	if got.Time != 5*time.Second || string(got.List) != "/a b\n" || got.Dir != "/x" || got.Snapshotter != "s" || got.Runtime != "r" ||
		!got.HostNetwork || got.PluginDir != "/cni" || !got.NoData || strings.Join(got.Args, " ") != "sh --time 7" {
		t.Errorf("%+v", got)
	}
	if _, err := parseRecord(t, "app:1"); err == nil {
		t.Error("one name is enough")
	}
	if _, err := parseRecord(t, "--priority_list", list+"none", "app:1", "app:2"); err == nil {
		t.Error("a list that is not there is no error")
	}
}

func TestPushFlags(t *testing.T) {
	var have []string
	for _, f := range pushCommand().Flags {
		have = append(have, f.Names()...)
	}
	for _, want := range []string{
		"skip-verify", "plain-http", "user", "refresh", "hosts-dir", "tlscacert", "tlscert", "tlskey", "http-dump", "http-trace",
		"platform", "max-concurrent-uploaded-layers", "allow-non-distributable-blobs",
	} {
		if !strings.Contains(" "+strings.Join(have, " ")+" ", " "+want+" ") {
			t.Errorf("push has no flag %s", want)
		}
	}
}

func TestPrints(t *testing.T) {
	d := digest.FromString("x")
	var out bytes.Buffer
	err := printRecord(&out, &record.Summary{
		Name: "app:2", Target: d, Ended: "the time was over", Records: 3, Read: 4096, Extents: 2, Planned: 1024, Layer: 2048, Data: 1000,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := printRecord(&out, &record.Summary{Name: "app:3", Target: d, Files: 2, Layer: 2048}); err != nil {
		t.Fatal(err)
	}
	blob := func(size int64, way transfer.Stored) push.Blob {
		return push.Blob{Descriptor: ocispec.Descriptor{Size: size}, Stored: way}
	}
	err = printPush(&out, "app:2", &push.Report{
		Target: ocispec.Descriptor{Digest: d},
		Blobs:  []push.Blob{blob(1024, transfer.Uploaded), blob(2048, transfer.Mounted), blob(1024, transfer.Uploaded)},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `app:2@` + d.String() + `
recorded until the time was over: 3 reads of 4.0 KiB
plan: 2 ranges of 1.0 KiB in the registry
trace layer: 2.0 KiB, of which data 1000 B
app:3@` + d.String() + `
priority list of 2 files
trace layer: 2.0 KiB, of which data 0 B
app:2@` + d.String() + `
pushed 3 blobs, 1 mounted (2.0 KiB), 2 uploaded (2.0 KiB)
`
	if out.String() != want {
		t.Errorf("printed\n%swant\n%s", out.String(), want)
	}
}

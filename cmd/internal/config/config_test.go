package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cmd/internal/config"
)

func load(t *testing.T, text string) (config.Snapshotter, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Load(path)
}

func TestEmptyFileGivesDefaults(t *testing.T) {
	c, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	want, _ := config.Default().Text()
	if got, _ := c.Text(); got != want {
		t.Errorf("an empty file gives\n%s\nwant\n%s", got, want)
	}
}

func TestDefaultTextLoads(t *testing.T) {
	text, err := config.Default().Text()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, text); err != nil {
		t.Errorf("loading the printed defaults: %v\n%s", err, text)
	}
}

func TestValuesAreRead(t *testing.T) {
	c, err := load(t, `
root = "/srv/reprise"
[cache]
max_size = "3GiB"
[read]
on_deadline = "error"
read_deadline = "45s"
[registry]
plain_http = ["registry.local:5000"]
[registry.hosts."registry.local:5000"]
verify = "required"
[download]
enabled = true
total_rate = "10MiB"
[trace]
record = ["registry.example/team/*"]
record_time = "5m"
referrers = true
workload = "web"
`)
	if err != nil {
		t.Fatal(err)
	}
	if c.Cache.Max != 3<<30 || c.Read.Deadline != 45e9 || c.Registry.PlainHTTP[0] != "registry.local:5000" {
		t.Errorf("read %+v", c)
	}
	if c.Registry.Verify != "when-possible" || c.Registry.Hosts["registry.local:5000"].Verify != "required" || !c.Download.Enabled || c.Download.TotalRate != 10<<20 {
		t.Errorf("read %+v", c)
	}
	if c.Trace.Record[0] != "registry.example/team/*" || c.Trace.RecordTime != 300e9 || c.Trace.Workload != "web" || !c.Trace.Replay {
		t.Errorf("read %+v", c.Trace)
	}
	if got := c.RecordDir(); got != "/srv/reprise/traces" {
		t.Errorf("RecordDir = %s", got)
	}
	if got := c.CacheDir(); got != "/srv/reprise/cache" {
		t.Errorf("CacheDir = %s", got)
	}
}

func TestErrorsNameKeyAndLine(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"root = \"/x\"\n[cache]\nmax_sise = \"1GiB\"\n", `line 3: unknown key "cache.max_sise"`},
		{"colour = 1\n[read]\nwhat = 2\n", `line 3: unknown key "read.what"`},
		{"[cache]\nmax_size = \"many\"\n", "line 2"},
		{"[cache]\nmax_size = \"many\"\n", `"many" is not a size`},
		{"[read]\nretry_base = \"5\"\n", "is not a duration"},
		{"root = \n", "line 1"},
		{"root = \"relative\"\n", "root"},
		{"[log]\nlevel = \"loud\"\n", "log.level"},
		{"[cache]\nmax_size = \"1MiB\"\n", "cache.max_size"},
		{"[registry]\nmax_requests = 4\nmax_background_requests = 4\n", "max_background_requests"},
		{"[read]\non_deadline = \"error\"\nread_deadline = \"0s\"\n", "read.read_deadline"},
		{"[device]\nmax_in_flight = 0\n", "device.max_in_flight"},
		{"[registry]\nverify = \"maybe\"\n", "registry.verify"},
		{"[registry.hosts.\"r:5000\"]\nverify = \"maybe\"\n", `registry.hosts."r:5000".verify`},
		{"[registry.hosts.\"r:5000\"]\nverfiy = \"off\"\n", `line 2: unknown key "registry.hosts.r:5000.verfiy"`},
		{"[download]\nimages = 0\n", "download.images"},
		{"[download]\nidle = \"0s\"\n", "download.idle"},
		{"[download]\nimage_rate = \"fast\"\n", "is not a size"},
		{"[trace]\nrecordings = []\n", `line 2: unknown key "trace.recordings"`},
		{"[trace]\nrecord = [\"\"]\n", "trace.record: an empty pattern"},
		{"[trace]\nrecord_time = \"0s\"\n", "trace.record_time"},
		{"[trace]\nrecord_label_time = \"0s\"\n", "trace.record_label_time"},
		{"[trace]\nrecord_paths = [\"/a\", \"b\"]\n", "trace.record_paths: \"b\""},
		{"[trace]\nrecord_dir = \"traces\"\n", "trace.record_dir"},
		{"[trace]\nrecord_keep = 0\n", "trace.record_keep"},
		{"[trace]\nmax_records = 2796202\n", "trace.max_records"},
		{"[trace]\nmax_recordings = 0\n", "trace.max_recordings"},
		{"[trace]\nimages = 0\n", "trace.images"},
		{"[trace]\nworkload = \"web\"\n", "trace.workload"},
	} {
		_, err := load(t, c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("loading %q = %v, want an error with %q", c.text, err, c.want)
		}
	}
}

// A table for a host that no reference begins with would be without effect.
func TestHostsAreThoseOfReferences(t *testing.T) {
	for _, c := range []struct{ host, want string }{
		{"registry.example", ""},
		{"registry.example:5000", ""},
		{"127.0.0.1:5000", ""},
		{"[::1]:5000", ""},
		{"localhost", ""},
		{"docker.io", ""},
		{"https://registry.example/", "must be a host or host:port"},
		{"https://registry.example", "must be a host or host:port"},
		{"registry.example/", "must be a host or host:port"},
		{"registry.example/team", "must be a host or host:port"},
		{"registry.example:port", "must be a host or host:port"},
		{"*.example", "must be a host or host:port"},
		{"team", "must be a host or host:port"}, // team/app is one of Docker Hub
		{"", "must be a host or host:port"},
		{"registry-1.docker.io", "write docker.io"},
		{"index.docker.io", "write docker.io"},
	} {
		_, err := load(t, fmt.Sprintf("[registry.hosts.%q]\nverify = \"required\"\n", c.host))
		if c.want == "" {
			if err != nil {
				t.Errorf("host %q: %v", c.host, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), fmt.Sprintf("registry.hosts.%q", c.host)) {
			t.Errorf("host %q: error %v, want one with the key and %q", c.host, err, c.want)
		}
	}
}

func TestMissingFile(t *testing.T) {
	if _, err := config.Load(filepath.Join(t.TempDir(), "none.toml")); err == nil {
		t.Error("loading a missing file gives no error")
	}
}

func FuzzLoad(f *testing.F) {
	text, _ := config.Default().Text()
	f.Add(text)
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := load(t, text); err == nil && c.Validate() != nil {
			t.Errorf("loaded a configuration that does not validate: %q", text)
		}
	})
}

// Package contrib_test checks the files in contrib/ against the programs that
// read them.
package contrib_test

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/plugin/registry"
	"github.com/pelletier/go-toml/v2"

	// For its configuration, with which the snippet is decoded.
	_ "github.com/containerd/containerd/v2/plugins/transfer"

	"github.com/reprise-containers/reprise/cmd/internal/config"
)

const dir = "../../../contrib/"

var update = flag.Bool("update", false, "rewrite contrib/config.toml")

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(dir + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestConfigIsTheDefault(t *testing.T) {
	want, err := config.Default().Text()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(dir+"config.toml", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := string(read(t, "config.toml")); got != want {
		t.Errorf("config.toml is not what reprise-snapshotter config prints (go test -update):\n%s", got)
	}
	if _, err := config.Load(dir + "config.toml"); err != nil {
		t.Error(err)
	}
}

func TestContainerdReadsItsSnippet(t *testing.T) {
	var c containerd.Config
	if err := containerd.LoadConfig(t.Context(), dir+"containerd.toml", &c); err != nil {
		t.Fatal(err)
	}
	p, ok := c.ProxyPlugins["overlaybd"]
	def := config.Default()
	if !ok || p.Type != "snapshot" || p.Address != def.Address || p.Exports["root"] != def.Root ||
		p.Exports["enable_remote_snapshot_annotations"] != "true" {
		t.Errorf("proxy plugin %+v; the daemon's root is %s, its address %s", p, def.Root, def.Address)
	}
}

// containerd only warns of keys it does not know.
func TestSnippetHasNoUnknownKeys(t *testing.T) {
	text := read(t, "containerd.toml")
	var c containerd.Config
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&c); err != nil {
		t.Error(err)
	}
	decoded := 0
	for _, r := range registry.Graph(nil) {
		section, ok := c.Plugins[r.URI()]
		if !ok {
			continue
		}
		decoded++
		b, err := toml.Marshal(section)
		if err != nil {
			t.Fatal(err)
		}
		if err := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields().Decode(r.Config); err != nil {
			t.Errorf("section of %s: %v", r.URI(), err)
		}
		back, err := toml.Marshal(r.Config)
		if err != nil || strings.Count(string(back), "snapshotter = ") != 2 {
			t.Errorf("section of %s was read as\n%s%v", r.URI(), back, err)
		}
	}
	if decoded != 1 || len(c.Plugins) != 1 {
		t.Errorf("%d of the sections %v are of plugins that exist", decoded, c.Plugins)
	}
}

// private are settings that give a service a mount namespace of its own, in
// which containerd would not see its mounts.
var private = []string{
	"PrivateMounts", "PrivateTmp", "PrivateDevices", "PrivateUsers", "PrivateNetwork", "PrivateIPC",
	"ProtectSystem", "ProtectHome", "ProtectKernelModules", "ProtectKernelTunables", "ProtectKernelLogs",
	"ProtectControlGroups", "ProtectProc", "ReadOnlyPaths", "ReadWritePaths", "InaccessiblePaths",
	"BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem", "RootDirectory", "RootImage", "MountFlags",
	"DynamicUser", "MountAPIVFS",
	// These keep it from /dev/fuse and loop devices.
	"ProtectClock", "DevicePolicy", "DeviceAllow",
	// These remove what the next daemon needs.
	"RuntimeDirectory",
}

func TestUnitKeepsMountsAlive(t *testing.T) {
	set := map[string]string{}
	for line := range strings.Lines(string(read(t, "reprise-snapshotter.service"))) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			set[key] = value
		}
	}
	for key, want := range map[string]string{
		"KillMode": "process", "Type": "notify", "Restart": "always", "StartLimitIntervalSec": "0", "OOMPolicy": "continue",
	} {
		if set[key] != want {
			t.Errorf("%s=%s, want %s", key, set[key], want)
		}
	}
	for key := range set {
		if slices.Contains(private, key) {
			t.Errorf("%s= breaks mounts", key)
		}
	}
}

func TestSystemdAcceptsTheUnit(t *testing.T) {
	analyzeUnit(t, read(t, "reprise-snapshotter.service"), "reprise-snapshotter.service", "ExecStart=/usr/local/bin/reprise-snapshotter ")
}

// analyzeUnit has systemd check a text as the unit name. The program in
// its line start need not be installed.
func analyzeUnit(t *testing.T, text []byte, name, start string) {
	t.Helper()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze")
	}
	unit := strings.Replace(string(text), start, "ExecStart=/bin/true ", 1)
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", "--generators=no", path).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		// Other units of the machine are its own affair.
		if strings.Contains(line, strings.TrimSuffix(name, ".service")) {
			t.Errorf("systemd-analyze: %s", line)
		}
	}
	if err != nil && len(out) == 0 {
		t.Error(err)
	}
}

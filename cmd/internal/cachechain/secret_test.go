package cachechain_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cmd/internal/cacheconfig"
)

// A secret that is too short is said to be, with the file's name and how to make another.
// One line's end does not count, everything else does.
func TestSecretOfACluster(t *testing.T) {
	full := strings.Repeat("s", 31) + " "
	for text, ok := range map[string]bool{
		"": false, "\n": false, full[:31]: false, full[:31] + "\n": false, full[:31] + "\r\n": false,
		full: true, full + "\n": true, full + "\r\n": true, full[:31] + "\n\n": true, "\n" + full[:31]: true,
	} {
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := cacheconfig.Default()
		cfg.Server.DefaultBackend.Host = "registry.example"
		cfg.Cluster.SecretPath, cfg.Cluster.Tier.Directory = path, t.TempDir()
		_, _, err := open(t, cfg)
		if ok && err == nil {
			continue
		}
		if ok || err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "/dev/urandom") {
			t.Errorf("%q: %v", text, err)
		}
	}
	cfg := cacheconfig.Default()
	cfg.Server.DefaultBackend.Host = "registry.example"
	cfg.Cluster.SecretPath, cfg.Cluster.Tier.Directory = filepath.Join(t.TempDir(), "none"), t.TempDir()
	if _, _, err := open(t, cfg); err == nil || !strings.Contains(err.Error(), cfg.Cluster.SecretPath) {
		t.Errorf("a secret that is not there: %v", err)
	}
}

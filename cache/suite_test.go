package cache_test

import (
	"testing"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/remote/blob"
)

func openCache(t testing.TB, cfg cache.Config) *cache.Cache {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	c, err := cache.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return c
}

func TestConformance(t *testing.T) {
	configs := map[string]cache.Config{
		"roomy": {},
		"lru":   {Policy: "lru", MaxBytes: 64 << 20},
	}
	for _, name := range policy.Names() {
		configs["tight/"+name] = cache.Config{Policy: name, MaxBytes: 1 << 20, QueueBytes: 64 << 10}
	}
	for name, cfg := range configs {
		t.Run(name, func(t *testing.T) {
			cachetest.Run(t, func(t *testing.T, b blob.Blob) blob.Blob { return openCache(t, cfg).Blob(b) })
		})
	}
}

// TestConformanceShared runs the suite with all blobs in one cache that keeps
// one of them open.
func TestConformanceShared(t *testing.T) {
	c := openCache(t, cache.Config{MaxOpen: 1})
	cachetest.Run(t, func(_ *testing.T, b blob.Blob) blob.Blob { return c.Blob(b) })
}

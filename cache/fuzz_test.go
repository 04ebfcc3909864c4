package cache_test

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache"
)

func FuzzMetadata(f *testing.F) {
	d := digest.FromString("x")
	f.Add([]byte(`{"version":2,"descriptor":{"mediaType":"a/b","digest":"` + d.String() + `","size":5},"fetchedAt":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		desc, err := cache.ParseMetadata(data, d)
		if err == nil && (desc.Digest != d || desc.Size <= 0 || desc.Size > 1<<40) {
			t.Errorf("accepted %+v", desc)
		}
	})
}

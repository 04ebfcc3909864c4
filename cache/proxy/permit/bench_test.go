package permit_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
	"github.com/reprise-containers/reprise/cache/proxy/route"
)

var blobResource = permit.Resource{
	Target: route.Target{Scheme: "https", Host: "registry.example.com"}, Repository: "library/redis",
	Kind: "blobs", Reference: "sha256:" + strings.Repeat("ab", 32),
}

func benchmarkCheck(b *testing.B, cfg permit.Config, auth permit.Secret) {
	c := permit.New(cfg, func(context.Context, permit.Resource, permit.Secret) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
	})
	ctx := context.Background()
	if _, err := c.Check(ctx, blobResource, auth, permit.Range); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			d, err := c.Check(ctx, blobResource, auth, permit.Range)
			if err != nil || !d.Allowed() {
				b.Fatal(d, err)
			}
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	token := permit.Secret("Bearer " + strings.Repeat("x", 1500))
	kept := permit.Config{RangeTTL: time.Hour}
	b.Run("kept/anonymous", func(b *testing.B) { benchmarkCheck(b, kept, "") })
	b.Run("kept/basic", func(b *testing.B) { benchmarkCheck(b, kept, "Basic dXNlcjpwYXNzd29yZA==") })
	b.Run("kept/token", func(b *testing.B) { benchmarkCheck(b, kept, token) })
	b.Run("kept/shared", func(b *testing.B) { benchmarkShared(b, 1, token) })
	b.Run("granted", func(b *testing.B) { benchmarkShared(b, 1000, token) })
	b.Run("trusted", func(b *testing.B) { benchmarkCheck(b, permit.Config{Policy: permit.Trusted}, token) })
	// The Checker's own part of asking: head takes nothing.
	b.Run("asked", func(b *testing.B) { benchmarkCheck(b, permit.Config{RangeTTL: -1, NegativeTTL: -1}, token) })
}

// benchmarkShared asks for n blobs that another replica was allowed, of which at most one
// is kept: with more, each is looked for in the place, which is in memory.
func benchmarkShared(b *testing.B, n int, auth permit.Secret) {
	p := newPlace()
	head := func(context.Context, permit.Resource, permit.Secret) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
	}
	blobs := make([]permit.Resource, n)
	for i := range blobs {
		blobs[i] = blobOf(fmt.Sprint("r", i))
	}
	cfg := permit.Config{RangeTTL: time.Hour, MaxEntries: 1}
	var c *permit.Checker
	for range 2 {
		c = permit.New(cfg, head)
		if err := c.Share(p, secret); err != nil {
			b.Fatal(err)
		}
		for _, r := range blobs {
			if _, err := c.Check(b.Context(), r, auth, permit.Range); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if d, err := c.Check(b.Context(), blobs[i%n], auth, permit.Range); err != nil || !d.Allowed() {
			b.Fatal(d, err)
		}
	}
	b.StopTimer()
	if s := c.Stats(); s.Heads != 0 {
		b.Fatalf("%+v", s)
	}
}

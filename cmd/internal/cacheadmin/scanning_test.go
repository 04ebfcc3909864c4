package cacheadmin_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/index"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
	"github.com/reprise-containers/reprise/cmd/internal/cacheadmin"
)

// TestPurgeWhileScanning: what is on disk and was not seen yet after a start is
// purged like all else, or nobody is told that it was.
func TestPurgeWhileScanning(t *testing.T) {
	dir := t.TempDir()
	open := func() *index.Index {
		i, err := index.Open(filepath.Join(dir, "index"), index.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	key := index.Key{Scheme: "https", Host: "hub", Repository: "team/app", Kind: index.KindManifests, Reference: "v1"}
	i := open()
	if err := i.Put(index.Link{Key: key, Descriptor: ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	i = open()
	defer i.Close()
	c, err := cache.Open(cache.Config{Dir: filepath.Join(dir, "content"), WholeBlobs: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	defer func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}()
	l, err := cacheadmin.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := cacheadmin.NewServer(cacheadmin.Parts{
		Cache: c, Index: i, Permit: permit.New(permit.Config{}, nil), Forget: func(digest.Digest) {},
	})
	go func() { ended <- s.Serve(ctx, l) }()
	client := cacheadmin.NewClient(dir)

	hurried, stop := context.WithTimeout(ctx, 200*time.Millisecond)
	defer stop()
	if done, err := client.Purge(hurried, cacheadmin.Purge{Images: []string{"hub/team/other"}}); err == nil {
		t.Errorf("before the index has been read: %+v", done)
	}
	go func() { ended <- i.Run(ctx) }()
	done, err := client.Purge(ctx, cacheadmin.Purge{Images: []string{"hub/team/app"}})
	if err != nil || done.Links != 1 {
		t.Errorf("came to %+v, %v", done, err)
	}
}

package registrycache_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache/cluster/tier/s3test"
	"github.com/reprise-containers/reprise/integration/registrycache/instance"
	"github.com/reprise-containers/reprise/integration/registrycache/origin"
)

const (
	levelBlobs   = 200
	levelSize    = 32 << 10 // small enough for memory
	levelReads   = 4000     // of a turn
	levelReaders = 16
)

// BenchmarkLevels reads small blobs from memory (L0) and from the disk (L1) of a
// registry-cache, and the same as objects of an S3 server by its client library alone, in
// turns, by as many readers.
func BenchmarkLevels(b *testing.B) {
	up, err := origin.Listen()
	if err != nil {
		b.Fatal(err)
	}
	defer up.Close()
	server := s3test.Start(b)
	client, err := minio.New(server.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(s3test.AccessKey, s3test.SecretKey, ""), Region: s3test.Region, BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		b.Fatal(err)
	}
	blobs := make([]*origin.Content, levelBlobs)
	for i := range blobs {
		blobs[i] = origin.Random(uint64(i)+1, levelSize)
		up.AddBlob("bench/blobs", blobs[i])
		body := bytes.NewReader(blobs[i].Bytes())
		if _, err := client.PutObject(b.Context(), s3test.Bucket, blobs[i].Digest.String(), body, levelSize, minio.PutObjectOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	reads := map[string]func(context.Context, *origin.Content) error{
		"L0": levelReader(b, up, "64MiB"), "L1": levelReader(b, up, "0B"),
		"library": func(ctx context.Context, x *origin.Content) error {
			o, err := client.GetObject(ctx, s3test.Bucket, x.Digest.String(), minio.GetObjectOptions{})
			if err != nil {
				return err
			}
			defer o.Close()
			return drained(o)
		},
	}
	took := map[string][]time.Duration{}
	for b.Loop() {
		for name, read := range reads {
			began := time.Now()
			if err := readAll(b.Context(), blobs, read); err != nil {
				b.Fatalf("%s: %v", name, err)
			}
			took[name] = append(took[name], time.Since(began))
		}
	}
	median := func(name string) float64 {
		slices.Sort(took[name])
		return took[name][len(took[name])/2].Seconds()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(levelReads/median("L0"), "L0-reads/s")
	b.ReportMetric(median("library")/median("L0"), "L0/library")
	b.ReportMetric(median("L1")/median("L0"), "L0/L1")
}

// levelReader starts a cache with so much memory for content and returns a reader of it.
func levelReader(b *testing.B, up *origin.Origin, memory string) func(context.Context, *origin.Content) error {
	path, err := program()
	if err != nil {
		b.Fatal(err)
	}
	i, err := instance.New(instance.Config{
		Program: path, Dir: b.TempDir(), Upstream: up.Address,
		Values: values{"server": values{"memory": memory}, "permission": values{"policy": "trusted"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := i.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := i.Stop(); err != nil {
			b.Error(err)
		}
	})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: levelReaders, DisableCompression: true}}
	return func(ctx context.Context, x *origin.Content) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+i.Address+"/v2/bench/blobs/blobs/"+x.Digest.String(), nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("it answers %s", resp.Status)
		}
		return drained(resp.Body)
	}
}

func drained(r io.Reader) error {
	n, err := io.Copy(io.Discard, r)
	if err == nil && n != levelSize {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// readAll reads all blobs over and over, by all readers at a time.
func readAll(ctx context.Context, blobs []*origin.Content, read func(context.Context, *origin.Content) error) error {
	var next atomic.Int64
	var g errgroup.Group
	for range levelReaders {
		g.Go(func() error {
			for i := next.Add(1); i <= levelReads; i = next.Add(1) {
				if err := read(ctx, blobs[i%levelBlobs]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

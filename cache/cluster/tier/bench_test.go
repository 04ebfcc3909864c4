package tier_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/reprise-containers/reprise/cache/cluster/tier"
	"github.com/reprise-containers/reprise/cache/cluster/tier/s3test"
)

const benchSize = 200 << 20

// compare reads the same bytes in both ways, in turns, and reports how much faster
// than the bare one the tier is.
func compare(b *testing.B, bare, ours func() (int64, error)) {
	b.SetBytes(benchSize)
	var took [2]time.Duration
	for b.Loop() {
		for i, read := range []func() (int64, error){bare, ours} {
			began := time.Now()
			n, err := read()
			took[i] += time.Since(began)
			if err != nil || n < benchSize {
				b.Fatalf("%d bytes: %v", n, err)
			}
		}
	}
	gb := float64(b.N) * benchSize / 1e9
	b.ReportMetric(gb/took[0].Seconds(), "bare-GB/s")
	b.ReportMetric(gb/took[1].Seconds(), "tier-GB/s")
	b.ReportMetric(took[0].Seconds()/took[1].Seconds(), "ratio")
}

func readAll(r io.ReadCloser, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 256<<10))
}

func writeAll(r io.ReadCloser, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return io.Copy(struct{ io.Writer }{io.Discard}, r)
}

// BenchmarkOpenS3 reads a whole blob, beside minio-go alone reading the same object.
func BenchmarkOpenS3(b *testing.B) {
	server := s3test.Start(b)
	l := newTier(b, newS3(b, server.Endpoint))
	blob := newBlob(benchSize, 1)
	put(b, l, blob, 1)
	client, err := minio.New(server.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(s3test.AccessKey, s3test.SecretKey, ""), Region: s3test.Region, BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		b.Fatal(err)
	}
	hex := blob.digest.Encoded()
	name := fmt.Sprintf("some/where/v1/sha256/%s/%s/%016x", hex[:2], hex, 1)
	bare := func() (io.ReadCloser, error) {
		return client.GetObject(context.Background(), s3test.Bucket, name, minio.GetObjectOptions{})
	}
	benchOpen(b, l, blob, bare)
}

// BenchmarkOpenDir reads a whole blob, beside reading the file.
func BenchmarkOpenDir(b *testing.B) {
	store, dir := newDir(b)
	l := newTier(b, store)
	blob := newBlob(benchSize, 1)
	put(b, l, blob, 1)
	hex := blob.digest.Encoded()
	name := filepath.Join(dir, "v1/sha256", hex[:2], hex, fmt.Sprintf("%016x", 1))
	benchOpen(b, l, blob, func() (io.ReadCloser, error) { return os.Open(name) })
}

func benchOpen(b *testing.B, l *tier.Tier, blob blob, bare func() (io.ReadCloser, error)) {
	ours := func() (io.ReadCloser, error) {
		return l.Open(context.Background(), blob.digest, blob.object(1), 0, benchSize)
	}
	b.Run("read", func(b *testing.B) {
		compare(b, func() (int64, error) { return readAll(bare()) }, func() (int64, error) { return readAll(ours()) })
	})
	b.Run("copy", func(b *testing.B) {
		compare(b, func() (int64, error) { return writeAll(bare()) }, func() (int64, error) { return writeAll(ours()) })
	})
}

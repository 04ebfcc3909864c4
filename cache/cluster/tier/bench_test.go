package tier_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/reprise-containers/reprise/cache/cluster/tier"
	"github.com/reprise-containers/reprise/cache/cluster/tier/s3test"
)

const (
	benchSize  = 200 << 20
	benchRange = 1 << 20 // about a segment of a blob
)

// compare does the same in both ways, in turns, and reports how much faster than the
// bare one the tier is: by the medians, and by the fastest of each, which other work on
// the machine disturbs least. Both return how many bytes they moved, always the same.
func compare(b *testing.B, bare, ours func() (int64, error)) {
	var took [2][]time.Duration
	var bytes int64
	for b.Loop() {
		for i, do := range []func() (int64, error){bare, ours} {
			began := time.Now()
			n, err := do()
			took[i] = append(took[i], time.Since(began))
			if err != nil || n < bytes {
				b.Fatalf("%d bytes: %v", n, err)
			}
			bytes = min(n, benchSize)
		}
	}
	slices.Sort(took[0])
	slices.Sort(took[1])
	bareMedian, ourMedian := took[0][len(took[0])/2].Seconds(), took[1][len(took[1])/2].Seconds()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(bytes)/1e9/bareMedian, "bare-GB/s")
	b.ReportMetric(float64(bytes)/1e9/ourMedian, "tier-GB/s")
	b.ReportMetric(bareMedian/ourMedian, "ratio")
	b.ReportMetric(took[0][0].Seconds()/took[1][0].Seconds(), "best-ratio")
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

// bench is a tier and what the same is done with without it.
type bench struct {
	tier *tier.Tier
	open func(name string, off, n int64) (io.ReadCloser, error)
	put  func(name string, r io.Reader, n int64) error
}

// BenchmarkS3 is beside minio-go alone with the same server.
func BenchmarkS3(b *testing.B) {
	server := s3test.Start(b)
	client, err := minio.New(server.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(s3test.AccessKey, s3test.SecretKey, ""), Region: s3test.Region, BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	benchAll(b, bench{
		tier: newTier(b, newS3(b, server.Endpoint)),
		open: func(name string, off, n int64) (io.ReadCloser, error) {
			var options minio.GetObjectOptions
			if n < benchSize {
				_ = options.SetRange(off, off+n-1)
			}
			return client.GetObject(ctx, s3test.Bucket, "some/where/"+name, options)
		},
		put: func(name string, r io.Reader, n int64) error {
			_, err := client.PutObject(ctx, s3test.Bucket, "some/where/"+name, r, n, minio.PutObjectOptions{})
			return err
		},
	})
}

// BenchmarkDir is beside the file alone.
func BenchmarkDir(b *testing.B) {
	store, dir := newDir(b)
	benchAll(b, bench{
		tier: newTier(b, store),
		open: func(name string, off, n int64) (io.ReadCloser, error) {
			f, err := os.Open(filepath.Join(dir, name))
			if err != nil {
				return nil, err
			}
			return struct {
				io.Reader
				io.Closer
			}{io.NewSectionReader(f, off, n), f}, nil
		},
		put: func(name string, r io.Reader, _ int64) error {
			f, err := os.Create(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := io.CopyBuffer(struct{ io.Writer }{f}, r, make([]byte, 1<<20)); err != nil {
				return err
			}
			return f.Sync()
		},
	})
}

func benchAll(b *testing.B, c bench) {
	ctx, blob, generation := context.Background(), newBlob(benchSize, 1), uint64(1)
	put(b, c.tier, blob, 1)
	for _, whole := range []struct {
		name string
		read func(io.ReadCloser, error) (int64, error)
	}{{"read", readAll}, {"copy", writeAll}} {
		b.Run(whole.name, func(b *testing.B) {
			compare(b,
				func() (int64, error) { return whole.read(c.open(objectName(blob, 1), 0, benchSize)) },
				func() (int64, error) { return whole.read(c.tier.Open(ctx, blob.digest, blob.object(1), 0, benchSize)) })
		})
	}
	b.Run("range", func(b *testing.B) {
		off := int64(0)
		compare(b,
			func() (int64, error) {
				off = (off + 7*benchRange) % (benchSize - benchRange)
				return readAll(c.open(objectName(blob, 1), off, benchRange))
			},
			func() (int64, error) {
				return readAll(c.tier.Open(ctx, blob.digest, blob.object(1), off, benchRange))
			})
	})
	b.Run("put", func(b *testing.B) {
		compare(b,
			func() (int64, error) {
				generation++
				return benchSize, c.put(fmt.Sprintf("bare-%d", generation%2), struct{ io.Reader }{bytes.NewReader(blob.data)}, benchSize)
			},
			func() (int64, error) {
				_ = c.tier.Remove(ctx, blob.digest, generation-1)
				return benchSize, c.tier.Put(ctx, blob.digest, blob.object(generation), bytes.NewReader(blob.data))
			})
	})
}

package cluster_test

import (
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

const promoted = 200 << 20

// BenchmarkPromotion has a replica that has nothing read a blob that is in the tier, which
// stores it on its disk and hashes it, beside the S3 client library alone: which reads the
// object and throws it away, or writes it to a file.
func BenchmarkPromotion(b *testing.B) {
	server := s3test.Start(b)
	store, err := tier.NewS3(tier.S3Config{
		Endpoint: server.Endpoint, Insecure: true, Bucket: s3test.Bucket, Region: s3test.Region,
		AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey,
	})
	if err != nil {
		b.Fatal(err)
	}
	client, err := minio.New(server.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(s3test.AccessKey, s3test.SecretKey, ""), Region: s3test.Region, BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx := b.Context()
	x := newBlob(promoted, 99)
	w := &world{t: b, store: store, lease: time.Minute}
	first := w.replica(true)
	if err := first.whole(ctx, x, &upstream{b: x}); err != nil {
		b.Fatal(err)
	}
	if err := first.Share(ctx, x.desc.Digest); err != nil {
		b.Fatal(err)
	}
	name := ""
	if err := store.List(ctx, "", func(e tier.Entry) error { name = e.Name; return nil }); err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), "object")
	nobody := &upstream{b: x, fail: func(int64) error { b.Error("the upstream is asked"); return io.EOF }}
	took := map[string][]time.Duration{}
	measure := func(what string, f func() error) {
		began := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		took[what] = append(took[what], time.Since(began))
	}
	for b.Loop() {
		measure("read", func() error {
			o, err := client.GetObject(ctx, s3test.Bucket, name, minio.GetObjectOptions{})
			if err != nil {
				return err
			}
			defer o.Close()
			_, err = io.Copy(struct{ io.Writer }{io.Discard}, o)
			return err
		})
		measure("write", func() error { return download(client, b, name, file) })
		r := w.replica(true)
		content, err := r.cache.Hold(origin, x.desc)
		if err != nil {
			b.Fatal(err)
		}
		measure("ours", func() error {
			rd := r.group.Reader(ctx, content, r.Source(origin, x.desc, nobody), 0, x.desc.Size)
			defer rd.Close()
			_, err := io.Copy(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{rd})
			return err
		})
		if !content.Verified() {
			b.Error("it was not verified")
		}
		content.Release()
		if _, err := r.cache.Remove(x.desc.Digest); err != nil {
			b.Fatal(err)
		}
	}
	median := func(what string) float64 {
		slices.Sort(took[what])
		return took[what][len(took[what])/2].Seconds()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(promoted/1e9/median("ours"), "GB/s")
	b.ReportMetric(median("read")/median("ours"), "of-reading")
	b.ReportMetric(median("write")/median("ours"), "of-writing-a-file")
}

// download has the client library write an object to a file.
func download(client *minio.Client, b *testing.B, name, file string) error {
	o, err := client.GetObject(b.Context(), s3test.Bucket, name, minio.GetObjectOptions{})
	if err != nil {
		return err
	}
	defer o.Close()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, o)
	return err
}

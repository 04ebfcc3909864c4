package tier_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/cluster/tier"
	"github.com/reprise-containers/reprise/cache/cluster/tier/s3test"
)

const (
	chunk = 64 << 10
	tail  = 24
	frame = chunk + tail
)

var secret = bytes.Repeat([]byte("cluster secret, "), 2)

// blob is some content.
type blob struct {
	data   []byte
	digest digest.Digest
}

func newBlob(size int, seed uint64) blob {
	data := make([]byte, size)
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(size), byte(size >> 8)})
	_, _ = random.Read(data)
	return blob{data, digest.FromBytes(data)}
}

func (b blob) object(generation uint64) tier.Object {
	return tier.Object{Generation: generation, Size: int64(len(b.data))}
}

func newDir(t testing.TB) (*tier.Dir, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := tier.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

// newS3 returns a client of the bucket of a server, or of a proxy of it.
func newS3(t testing.TB, endpoint string) *tier.S3 {
	t.Helper()
	s, err := tier.NewS3(s3Config(endpoint))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func s3Config(endpoint string) tier.S3Config {
	return tier.S3Config{
		Endpoint: endpoint, Insecure: true, Bucket: s3test.Bucket, Prefix: "some/where/", Region: s3test.Region,
		AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey,
	}
}

func newTier(t testing.TB, s tier.Store) *tier.Tier {
	t.Helper()
	l, err := tier.New(s, tier.Config{Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func put(t testing.TB, l *tier.Tier, b blob, generation uint64) {
	t.Helper()
	if err := l.Put(t.Context(), b.digest, b.object(generation), bytes.NewReader(b.data)); err != nil {
		t.Fatal(err)
	}
}

// read reads all of a range.
func read(t testing.TB, l *tier.Tier, b blob, generation uint64, off, n int64) ([]byte, error) {
	t.Helper()
	r, err := l.Open(t.Context(), b.digest, b.object(generation), off, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

package tier

import (
	"context"
	"crypto/x509"
	"io"
	"time"

	"github.com/minio/minio-go/v7"
)

// S3Config says where a bucket is.
type S3Config struct {
	Endpoint  string // host[:port]
	Insecure  bool   // HTTP
	Bucket    string
	Prefix    string // of all names, "" or ending with a slash
	Region    string // "": the bucket's is asked for
	AccessKey string // "": as the environment, files or the machine's role say
	SecretKey string
	CA        *x509.CertPool // nil: the system's
	PathStyle bool           // the bucket is in the path, not the host name
}

// S3 is a Store in a bucket.
type S3 struct {
	cfg    S3Config
	client *minio.Client
}

// NewS3 returns the Store in a bucket, which need not be reached now.
func NewS3(cfg S3Config) (*S3, error) { return nil, ErrAway }

// Open implements Store.
func (s *S3) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, int64, error) {
	return nil, 0, ErrAway
}

// Create implements Store.
func (s *S3) Create(ctx context.Context, name string, r io.Reader, size int64) error { return ErrAway }

// List implements Store.
func (s *S3) List(ctx context.Context, folder string, f func(Entry) error) error { return ErrAway }

// Remove implements Store.
func (s *S3) Remove(ctx context.Context, name string) error { return ErrAway }

// Tidy implements Tidier.
func (s *S3) Tidy(ctx context.Context, before time.Time) (Removed, error) { return Removed{}, ErrAway }

package tier

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

const (
	// partSize is the largest object that is stored by one request, and the size of
	// the parts of a larger one, unless there were more than maxParts; one part is
	// in memory at a time.
	partSize = 16 << 20
	maxParts = 10000
	// readBuffer is what is read of a connection at once, and memory of each. With less
	// a frame takes more system calls, and reading a tenth more time.
	readBuffer = 8 * frameSize
	// writeTries is how often a part is sent. What is read is asked for once: the
	// caller has other places.
	writeTries = 4
)

// S3Config says where a bucket is.
type S3Config struct {
	Endpoint  string // host[:port]
	Insecure  bool   // HTTP
	Bucket    string
	Prefix    string // of all names; a slash is added where there is none at its end
	Region    string // "": the bucket's is asked for
	AccessKey string // "": as the environment, files or the machine's role say
	SecretKey string
	CA        *x509.CertPool // nil: the system's
}

// S3 is a Store in a bucket, which is named in the path, or in the host name where that
// is a public service's. Objects are created under the condition that there is none
// of the name, where the server knows it. The key must have the rights GetObject,
// PutObject, DeleteObject and ListBucket (without that, what is not there is an error
// of the store), and for Sweep ListBucketMultipartUploads, ListMultipartUploadParts and
// AbortMultipartUpload.
type S3 struct {
	cfg           S3Config
	reads, writes minio.Core
	unconditional atomic.Bool // the server does not know conditions
}

// NewS3 returns the Store in a bucket, which need not be reached now.
func NewS3(cfg S3Config) (*S3, error) {
	if cfg.Bucket == "" {
		return nil, errors.New("shared tier without a bucket")
	}
	if cfg.Prefix != "" && !strings.HasSuffix(cfg.Prefix, "/") {
		cfg.Prefix += "/"
	}
	transport, err := minio.DefaultTransport(!cfg.Insecure)
	if err != nil {
		return nil, fmt.Errorf("preparing connections to %s: %w", cfg.Endpoint, err)
	}
	transport.MaxIdleConnsPerHost = 32
	transport.ReadBufferSize = readBuffer
	transport.WriteBufferSize = frameSize
	transport.ResponseHeaderTimeout = completeTimeout // of what may take longest
	if !cfg.Insecure && cfg.CA != nil {
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.CA}
	}
	options := minio.Options{Secure: !cfg.Insecure, Transport: transport, Region: cfg.Region, MaxRetries: 1, Creds: credentialsOf(cfg)}
	s := &S3{cfg: cfg}
	reads, err := minio.NewCore(cfg.Endpoint, &options)
	if err != nil {
		return nil, fmt.Errorf("preparing a client of %s: %w", cfg.Endpoint, err)
	}
	options.MaxRetries = writeTries
	writes, err := minio.NewCore(cfg.Endpoint, &options)
	if err != nil {
		return nil, fmt.Errorf("preparing a client of %s: %w", cfg.Endpoint, err)
	}
	s.reads, s.writes = *reads, *writes
	return s, nil
}

func credentialsOf(cfg S3Config) *credentials.Credentials {
	if cfg.AccessKey != "" {
		return credentials.NewStaticV4(cfg.AccessKey, cfg.SecretKey, "")
	}
	return credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{}, &credentials.EnvMinio{}, &credentials.FileAWSCredentials{}, &credentials.IAM{},
	})
}

// errorOf returns err as a Store says it. Only S3 knows what objects there are: the
// client calls each 404 NoSuchKey, also that of a proxy without a server, or of a
// server that is another one. Answers of S3 are XML, and there is none to HEAD, which
// is not used therefore.
func errorOf(err error) error {
	response := minio.ErrorResponse{}
	if !errors.As(err, &response) {
		return err
	}
	switch {
	case response.XMLName.Local == "":
		if response.StatusCode != 0 {
			return fmt.Errorf("HTTP status %d, not said by S3: %w", response.StatusCode, err)
		}
	case response.Code == minio.NoSuchKey:
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case response.Code == minio.PreconditionFailed || response.StatusCode == http.StatusPreconditionFailed:
		return fmt.Errorf("%w: %w", fs.ErrExist, err)
	case response.Code == minio.InvalidObjectState: // a rule of the bucket's has archived it
		return fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return err
}

// Open implements Store.
func (s *S3) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, int64, error) {
	body, size, err := s.open(ctx, name, off, n)
	if minio.ToErrorResponse(err).Code != minio.InvalidRange {
		return body, size, errorOf(err)
	}
	// It ends before that: its first byte is asked for to know its size.
	body, size, err = s.open(ctx, name, 0, 1)
	switch {
	case minio.ToErrorResponse(err).Code == minio.InvalidRange:
		size = 0
	case err != nil:
		return nil, 0, errorOf(err)
	default:
		body.Close()
	}
	return io.NopCloser(strings.NewReader("")), size, nil
}

// open is Open with the client's errors.
func (s *S3) open(ctx context.Context, name string, off, n int64) (io.ReadCloser, int64, error) {
	var options minio.GetObjectOptions
	if err := options.SetRange(off, off+n-1); err != nil {
		return nil, 0, err
	}
	body, info, header, err := s.reads.GetObject(ctx, s.cfg.Bucket, s.cfg.Prefix+name, options)
	if err != nil {
		return nil, 0, err
	}
	_, text, ok := strings.Cut(header.Get("Content-Range"), "/")
	if !ok && off == 0 && info.Size >= 0 {
		return body, info.Size, nil // all of it
	}
	size, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		body.Close()
		return nil, 0, fmt.Errorf("reading %s: the server answers a range with Content-Range %q", name, header.Get("Content-Range"))
	}
	return body, size, nil
}

// List implements Store.
func (s *S3) List(ctx context.Context, folder string, f func(Entry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for o := range s.reads.ListObjectsIter(ctx, s.cfg.Bucket, minio.ListObjectsOptions{Prefix: s.cfg.Prefix + folder, Recursive: true}) {
		if o.Err != nil {
			return errorOf(o.Err)
		}
		name, ok := strings.CutPrefix(o.Key, s.cfg.Prefix)
		if !ok || strings.HasSuffix(name, "/") {
			continue
		}
		if err := f(Entry{Name: name, Size: o.Size, ModTime: o.LastModified}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Remove implements Store.
func (s *S3) Remove(ctx context.Context, name string) error {
	err := errorOf(s.writes.RemoveObject(ctx, s.cfg.Bucket, s.cfg.Prefix+name, minio.RemoveObjectOptions{}))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Create implements Store.
func (s *S3) Create(ctx context.Context, name string, r io.Reader, size int64) error {
	var options minio.PutObjectOptions
	options.DisableMultipart = true
	if !s.unconditional.Load() {
		options.SetMatchETagExcept("*")
	}
	part := max(partSize, (size+maxParts-1)/maxParts)
	buf := make([]byte, min(part, size))
	key := s.cfg.Prefix + name
	var err error
	if size <= part {
		if _, err = io.ReadFull(r, buf); err == nil {
			_, err = s.writes.Client.PutObject(ctx, s.cfg.Bucket, key, bytes.NewReader(buf), size, options)
		}
	} else {
		err = s.createParts(ctx, key, parts{r, size, buf}, options)
	}
	if minio.ToErrorResponse(err).Code == minio.NotImplemented {
		s.unconditional.Store(true) // the next time it works
	}
	return errorOf(err)
}

// parts are what an object is made of.
type parts struct {
	r    io.Reader
	size int64  // of all
	buf  []byte // of the size of one
}

// createParts creates an object by more than one request. Its parts are thrown away
// after an error.
func (s *S3) createParts(ctx context.Context, key string, p parts, options minio.PutObjectOptions) error {
	id, err := s.writes.NewMultipartUpload(ctx, s.cfg.Bucket, key, minio.PutObjectOptions{})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			_ = s.writes.AbortMultipartUpload(ctx, s.cfg.Bucket, key, id) // Tidy finds what is left
		}
	}()
	var done []minio.CompletePart
	for left := p.size; left > 0; left -= int64(len(p.buf)) {
		p.buf = p.buf[:min(left, int64(len(p.buf)))]
		if _, err = io.ReadFull(p.r, p.buf); err != nil {
			return err
		}
		var part minio.ObjectPart
		part, err = s.writes.PutObjectPart(ctx, s.cfg.Bucket, key, id, len(done)+1, bytes.NewReader(p.buf), int64(len(p.buf)), minio.PutObjectPartOptions{})
		if err != nil {
			return err
		}
		done = append(done, minio.CompletePart{PartNumber: part.PartNumber, ETag: part.ETag})
	}
	if n, readErr := p.r.Read(make([]byte, 1)); n != 0 || !errors.Is(readErr, io.EOF) {
		err = fmt.Errorf("%d bytes and more: %w", p.size, readErr)
		return err
	}
	_, err = s.writes.CompleteMultipartUpload(ctx, s.cfg.Bucket, key, id, done, options)
	return err
}

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
	Prefix    string // of all names, "" or ending with a slash
	Region    string // "": the bucket's is asked for
	AccessKey string // "": as the environment, files or the machine's role say
	SecretKey string
	CA        *x509.CertPool // nil: the system's
	PathStyle bool           // the bucket is in the path, not the host name
}

// S3 is a Store in a bucket. Objects are created under the condition that there is none
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
		return nil, fmt.Errorf("prefix %q of the shared tier has no slash at its end", cfg.Prefix)
	}
	transport, err := minio.DefaultTransport(!cfg.Insecure)
	if err != nil {
		return nil, fmt.Errorf("preparing connections to %s: %w", cfg.Endpoint, err)
	}
	transport.MaxIdleConnsPerHost = 32
	transport.ReadBufferSize = readBuffer
	transport.WriteBufferSize = frameSize
	if !cfg.Insecure && cfg.CA != nil {
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.CA}
	}
	options := minio.Options{Secure: !cfg.Insecure, Transport: transport, Region: cfg.Region, MaxRetries: 1, Creds: credentialsOf(cfg)}
	if cfg.PathStyle {
		options.BucketLookup = minio.BucketLookupPath
	}
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

// errorOf returns err as a Store says it.
func errorOf(err error) error {
	response := minio.ErrorResponse{}
	if !errors.As(err, &response) {
		return err
	}
	switch {
	case response.Code == minio.NoSuchKey:
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case response.StatusCode == http.StatusPreconditionFailed:
		return fmt.Errorf("%w: %w", fs.ErrExist, err)
	}
	return err
}

// Open implements Store.
func (s *S3) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, int64, error) {
	var options minio.GetObjectOptions
	if err := options.SetRange(off, off+n-1); err != nil {
		return nil, 0, err
	}
	body, info, header, err := s.reads.GetObject(ctx, s.cfg.Bucket, s.cfg.Prefix+name, options)
	if minio.ToErrorResponse(err).Code == minio.InvalidRange {
		return s.beyond(ctx, name)
	}
	if err != nil {
		return nil, 0, errorOf(err)
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

// beyond is Open of what is not in an object.
func (s *S3) beyond(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	info, err := s.reads.StatObject(ctx, s.cfg.Bucket, s.cfg.Prefix+name, minio.StatObjectOptions{})
	if err != nil {
		return nil, 0, errorOf(err)
	}
	return io.NopCloser(strings.NewReader("")), info.Size, nil
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
	_, err = s.writes.CompleteMultipartUpload(ctx, s.cfg.Bucket, key, id, done, options)
	return err
}

// Tidy implements Tidier.
func (s *S3) Tidy(ctx context.Context, before time.Time) (removed Removed, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var left []minio.ObjectMultipartInfo
	for u := range s.reads.ListIncompleteUploads(ctx, s.cfg.Bucket, s.cfg.Prefix+version, true) {
		if u.Err != nil {
			return removed, errorOf(u.Err)
		}
		if _, _, ok := parseName(strings.TrimPrefix(u.Key, s.cfg.Prefix)); ok && u.Initiated.Before(before) {
			left = append(left, u)
		}
	}
	for _, u := range left {
		size, idle, idleErr := s.idle(ctx, u, before)
		if idleErr == nil && idle {
			idleErr = s.writes.AbortMultipartUpload(ctx, s.cfg.Bucket, u.Key, u.UploadID)
		}
		switch {
		case minio.ToErrorResponse(idleErr).Code == minio.NoSuchUpload: // it has ended
		case idleErr != nil:
			err = errors.Join(err, idleErr)
		case idle:
			removed.Count++
			removed.Bytes += size
		}
	}
	return removed, err
}

// idle reports whether no part of an upload came since a time, and the size of all.
func (s *S3) idle(ctx context.Context, u minio.ObjectMultipartInfo, since time.Time) (size int64, idle bool, err error) {
	for marker := 0; ; {
		parts, err := s.reads.ListObjectParts(ctx, s.cfg.Bucket, u.Key, u.UploadID, marker, 1000)
		if err != nil {
			return 0, false, err
		}
		for _, p := range parts.ObjectParts {
			size += p.Size
			if !p.LastModified.Before(since) {
				return 0, false, nil
			}
		}
		if !parts.IsTruncated {
			return size, true, nil
		}
		marker = parts.NextPartNumberMarker
	}
}

package upstream

import (
	"errors"
	"io"
	"net/url"
	"sync/atomic"
)

// body is the body of an answer. Its end frees the worker.
type body struct {
	io.ReadCloser
	method  string
	url     *url.URL
	bytes   *atomic.Int64
	leave   func()
	timeout func() // counts one
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes.Add(int64(n))
	if err == nil {
		return n, nil
	}
	b.leave()
	if err == io.EOF { //nolint:errorlint // a body ends with it as it is
		return n, err
	}
	err = fail(b.method, b.url, err)
	if e := (*Error)(nil); errors.As(err, &e) && e.Timeout() {
		b.timeout()
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.leave()
	return err
}

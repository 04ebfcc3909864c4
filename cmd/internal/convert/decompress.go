package convert

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

// maxWindow is the largest zstd window in bytes that is decoded: what zstd
// itself takes without being asked for more.
const maxWindow = 128 << 20

// decompress returns the decompressed bytes of r. What it is compressed with is
// told by its first bytes, as containerd does it: media types lie.
func decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 256<<10)
	head, err := b.Peek(4)
	if err != nil && err != io.EOF { //nolint:errorlint // a layer shorter than that is plain
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("decompressing gzip: %w", err)
		}
		return named{z, "gzip", z.Close}, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		len(head) == 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18}): // a skippable frame
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("decompressing zstd: %w", err)
		}
		return named{z, "zstd", func() error { z.Close(); return nil }}, nil
	}
	return io.NopCloser(b), nil
}

// named says in errors what was decompressed.
type named struct {
	io.Reader
	name  string
	close func() error
}

// Read implements io.Reader.
func (n named) Read(p []byte) (int, error) {
	k, err := n.Reader.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // one that wraps it is another error
		err = fmt.Errorf("decompressing %s: %w", n.name, err)
	}
	return k, err
}

// Close implements io.Closer.
func (n named) Close() error { return n.close() }

// counter counts what is read.
type counter struct {
	r io.Reader
	n atomic.Int64
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// limited ends with an error when more comes than is reasonable.
type limited struct {
	r          io.Reader
	limits     Limits
	compressed *counter
	n          int64
}

// Read implements io.Reader.
func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.n += int64(n)
	switch in := l.compressed.n.Load(); {
	case l.n > l.limits.LayerSize:
		return 0, fmt.Errorf("it decompresses to more than %s: if that is as it should be, raise --max-layer-size",
			terminal.Bytes(l.limits.LayerSize))
	case l.n > l.limits.RatioFrom && l.n/l.limits.Ratio > in:
		return 0, fmt.Errorf("its first %s decompress to %s, more than %d times as much: if that is as it should be, raise --max-ratio",
			terminal.Bytes(in), terminal.Bytes(l.n), l.limits.Ratio)
	}
	return n, err
}

package proxy

import (
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/reprise-containers/reprise/cache"
)

// piece is how much a client must take within WriteTimeout, in bytes, of what
// is sent by sendfile.
const piece = 512 << 10

// smallRead is up to where a window is read into memory instead of opening the
// file for it.
const smallRead = 64 << 10

var smallBuffers = sync.Pool{New: func() any { return new([smallRead]byte) }}

// sendItem sends content from memory; it evaluates the preconditions first.
func (x *exchange) sendItem(it *item, contentType []string, rng wanted, ranged bool) {
	if x.precondition(it.etag[0]) {
		return
	}
	h := x.w.Header()
	body, length := it.body, it.length
	status := http.StatusOK
	if ranged {
		win, ok := x.window(int64(len(it.body)), rng, true)
		if !ok {
			return
		}
		body, length = it.body[win.off:win.off+win.n], []string{formatInt(win.n)}
		h["Content-Range"] = []string{contentRange(win, int64(len(it.body)))}
		status = http.StatusPartialContent
	}
	x.hit()
	h["Content-Type"] = contentType
	h["Content-Length"] = length
	h["Docker-Content-Digest"] = it.digestHeader
	h["Etag"] = it.etag
	if x.res.kind == KindBlob {
		h["Accept-Ranges"] = acceptRanges
	}
	x.begin(status)
	x.write(body)
}

// sendContent sends a window of content that is complete and verified. It
// returns false, with nothing sent, if the disk does not give it.
func (x *exchange) sendContent(c *cache.Content, win window, ranged bool) bool {
	if win.n <= smallRead {
		return x.sendSmall(c, win, ranged)
	}
	f, err := c.Open(win.off)
	if err != nil {
		return false
	}
	defer f.Close()
	if !x.h.streamers.enter(x.r.Context()) {
		x.fail(tooMany(x.h.cfg.QueueFor))
		return true
	}
	defer x.h.streamers.leave()
	x.hit()
	x.beginBlob(c.Descriptor().Size, win, ranged)
	defer func() { c.Used(x.sent) }()
	if n, err := x.ReadFrom(io.LimitReader(f, win.n)); err != nil || n < win.n {
		// It is the client, or the file: then the cache finds out as it reads
		// there itself, and the next client has the blob from the upstream.
		var one [1]byte
		_, _ = c.ReadAt(one[:], win.off+n)
		x.abort()
	}
	return true
}

// sendSmall sends a small window by way of memory.
func (x *exchange) sendSmall(c *cache.Content, win window, ranged bool) bool {
	buf := smallBuffers.Get().(*[smallRead]byte)
	defer smallBuffers.Put(buf)
	if n, _ := c.ReadAt(buf[:win.n], win.off); int64(n) < win.n {
		return false // the upstream has it
	}
	x.hit()
	x.beginBlob(c.Descriptor().Size, win, ranged)
	x.write(buf[:win.n])
	return true
}

// copier is io.ReaderFrom for writers that are not, such as those of HTTP/2.
type copier struct{ w io.Writer }

func (c copier) ReadFrom(r io.Reader) (int64, error) {
	buf := smallBuffers.Get().(*[smallRead]byte)
	defer smallBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{c.w}, struct{ io.Reader }{r}, buf[:])
}

func formatInt(n int64) string { return strconv.FormatInt(n, 10) }

package load

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/maphash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/content"
)

const (
	// compareFrom is the size from which comparing a body with what was pushed is
	// cheaper than hashing it.
	compareFrom  = 16 << 10
	comparePiece = 16 << 10
	// maxFamiliar bounds for how many objects it is held whether they are what was
	// pushed for their URI.
	maxFamiliar = 1 << 20
)

// checks tells whether bodies are what they should be. What the content of a URI is
// can be made anew (see content.Maker), which costs a quarter of hashing it: when the
// body of a URI was found to have the right digest and to be that content, later ones
// are only compared with it.
type checks struct {
	maker *content.Maker
	seed  maphash.Seed

	mu       sync.Mutex
	familiar map[uint64]bool // by hash of object: whether it is what the maker makes
}

// object is the content of a URI with a size; its digest is the right one.
type object struct {
	uri    string
	size   int64
	digest digest.Digest
}

func newChecks(m *content.Maker) *checks {
	return &checks{maker: m, seed: maphash.MakeSeed(), familiar: map[uint64]bool{}}
}

func (c *checks) look(o object) (made, known bool) {
	key := maphash.Comparable(c.seed, o)
	c.mu.Lock()
	defer c.mu.Unlock()
	made, known = c.familiar[key]
	return made, known
}

func (c *checks) note(o object, made bool) {
	key := maphash.Comparable(c.seed, o)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.familiar) < maxFamiliar {
		c.familiar[key] = made
	}
}

// check is of the body of one answer.
type check struct {
	of   *checks
	it   *Item
	what object
	part bool // of it is received

	hash    hash.Hash // nil: it is not hashed
	made    io.Reader // what the maker makes, from where the body begins; nil: it is not compared
	buf     *[comparePiece]byte
	at      int64 // offset of what is compared next
	differs error // from what the maker makes
}

var (
	sha256s   = sync.Pool{New: func() any { return sha256.New() }}
	comparing = sync.Pool{New: func() any { return new([comparePiece]byte) }}
)

// begin takes in the head of the answer.
func (c *check) begin(a *Answer) error {
	c.part = c.it.Len > 0 && a.Status == http.StatusPartialContent
	size, off := a.Size, int64(0)
	if c.part {
		size, off = wholeOf(a), c.it.Off
	}
	c.what = object{c.it.URI, size, c.it.Digest}
	made, known := false, true
	if size >= compareFrom || c.part && size >= 0 {
		made, known = c.of.look(c.what)
	}
	if made || !known {
		body := c.of.maker.Body(c.it.URI, size)
		if _, err := body.Seek(off, io.SeekStart); err != nil {
			return fmt.Errorf("making what %s should be: %w", c.it.URI, err)
		}
		c.made, c.at, c.buf = body, off, comparing.Get().(*[comparePiece]byte)
	}
	if made || c.part { // the comparison decides
		return nil
	}
	if strings.HasPrefix(string(c.it.Digest), "sha256:") { // what is no digest is found when it is compared
		c.hash = sha256s.Get().(hash.Hash)
		c.hash.Reset()
		return nil
	}
	if err := c.it.Digest.Validate(); err != nil {
		return &Error{CauseMismatch, a.Status, fmt.Errorf("the digest %q to compare with: %w", c.it.Digest, err)}
	}
	c.hash = c.it.Digest.Algorithm().Hash()
	return nil
}

// wholeOf returns the size of the whole of which an answer has a range, -1 if it does
// not say.
func wholeOf(a *Answer) int64 {
	_, whole, _ := strings.Cut(a.Header.Get("Content-Range"), "/")
	size, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return -1
	}
	return size
}

func (c *check) write(p []byte) error {
	if c.hash != nil {
		c.hash.Write(p)
	}
	for c.made != nil && c.differs == nil && len(p) > 0 {
		n, err := c.made.Read(c.buf[:min(len(p), comparePiece)])
		if err != nil || !bytes.Equal(p[:n], c.buf[:n]) {
			c.differs = fmt.Errorf("there are others within %d bytes from %d", n, c.at)
		}
		c.at += int64(n)
		p = p[n:]
	}
	return nil
}

// end returns what is wrong with a body that has ended.
func (c *check) end(ctx context.Context, a Answer) error {
	if c.hash != nil {
		if !c.hashed() {
			return mismatch(a, "the %d bytes received are not %s", a.Bytes, c.it.Digest)
		}
		if c.made != nil {
			c.of.note(c.what, c.differs == nil)
		}
		return nil
	}
	if c.made == nil {
		return nil // a part of what is nobody's to make
	}
	if c.differs == nil && !c.part && c.at != c.what.size {
		c.differs = fmt.Errorf("it ends after %d of %d", c.at, c.what.size)
	}
	if c.differs == nil {
		return nil
	}
	made, known := c.of.look(c.what)
	if !known { // the rest of it was never seen: is it what the maker makes?
		d, err := c.of.maker.Digest(ctx, c.it.URI, c.what.size)
		if err != nil {
			return err
		}
		made = d == c.it.Digest
		c.of.note(c.what, made)
	}
	if made {
		return mismatch(a, "the %d bytes received are not those of %s: %w", a.Bytes, c.it.Digest, c.differs)
	}
	return nil
}

func mismatch(a Answer, format string, args ...any) error {
	return &Error{CauseMismatch, a.Status, fmt.Errorf(format, args...)}
}

// hashed reports whether the hash is that of the digest.
func (c *check) hashed() bool {
	var sum [64]byte
	var text [128]byte
	n := hex.Encode(text[:], c.hash.Sum(sum[:0]))
	_, want, _ := strings.Cut(string(c.it.Digest), ":")
	return string(text[:n]) == want
}

// close gives back what the check borrowed.
func (c *check) close() {
	if c.hash != nil && strings.HasPrefix(string(c.it.Digest), "sha256:") {
		sha256s.Put(c.hash)
	}
	if c.buf != nil {
		comparing.Put(c.buf)
	}
}

package proxy

import (
	"strconv"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
)

// hold returns the content of a blob, made if need be. If the upstream once
// stated another size for it, what was kept of that is of no use.
func (h *Handler) hold(key blobKey, size int64) (*cache.Content, error) {
	desc := ocispec.Descriptor{MediaType: octetStream[0], Digest: key.digest, Size: size}
	c, err := h.parts.Cache.Hold(key.origin, desc)
	if err == nil {
		return c, nil
	}
	old, ok := h.parts.Cache.Find(key.origin, key.digest)
	if !ok {
		return nil, err
	}
	defer old.Release()
	if old.Descriptor().Size == size {
		return nil, err
	}
	if old.Verified() {
		return h.parts.Cache.Hold(key.origin, old.Descriptor())
	}
	if err := old.Drop(false); err != nil {
		return nil, err
	}
	return h.parts.Cache.Hold(key.origin, desc)
}

// knownSize returns the size of a blob that the cache or an answer of this
// upstream tells, or 0.
func (h *Handler) knownSize(key blobKey) int64 {
	if c, ok := h.parts.Cache.Find(key.origin, key.digest); ok {
		defer c.Release()
		return c.Descriptor().Size
	}
	return h.sizes.get(key)
}

// sizes remembers what upstreams that redirect say of the size of blobs that
// are not in the cache yet. The zero value is ready to use.
type sizes struct {
	mu sync.Mutex
	m  map[blobKey]int64
}

const maxSizes = 4096

func (s *sizes) get(key blobKey) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[key]
}

func (s *sizes) put(key blobKey, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil || len(s.m) >= maxSizes {
		s.m = make(map[blobKey]int64)
	}
	s.m[key] = size
}

func (s *sizes) drop(key blobKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, key)
}

// used tells the engine, now and then, that what is served from memory is in
// use.
func (x *exchange) used(it *item) {
	const every = 10 // seconds
	now, last := x.start.Unix(), it.touched.Load()
	if now-last < every && now >= last || !it.touched.CompareAndSwap(last, now) {
		return
	}
	if c, ok := x.h.parts.Cache.Find(x.origin(), it.digest); ok {
		c.Used(int64(len(it.body)))
		c.Release()
	}
}

// promote brings verified content into memory, after looking whether the disk
// still has it right. It reports false, and drops the content, if not.
func (h *Handler) promote(c *cache.Content) (*item, bool) {
	desc := c.Descriptor()
	body := make([]byte, desc.Size)
	if n, _ := c.ReadAt(body, 0); n < len(body) {
		return nil, false // the upstream has it
	}
	if digest.FromBytes(body) != desc.Digest {
		h.count.badContent.Add(1)
		if err := c.Drop(true); err != nil {
			h.count.notStored.Add(1)
		}
		return nil, false
	}
	it := newItem(body, desc.Digest)
	if h.memory != nil {
		h.memory.keep(it)
	}
	return it, true
}

func newItem(body []byte, d digest.Digest) *item {
	return &item{
		body: body, digest: d, etag: []string{etagOf(d)}, digestHeader: []string{string(d)},
		length: []string{strconv.Itoa(len(body))},
	}
}

package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/integration/registrycache/origin"
)

const (
	repository = "soak/private"
	mallory    = "mallory" // may read nothing
	blobs      = 500
	smallest   = 512
	largest    = 24 << 20
	tags       = 20
)

// stock is what the upstream has: blobs of sizes that are spread evenly over
// their logarithm, and tags that move from time to time.
type stock struct {
	blobs []*origin.Content

	mu        sync.Mutex
	manifests map[digest.Digest]bool // all there ever were
	tagged    [tags]digest.Digest    // what each leads to now
	serial    int
}

func newStock(seed uint64) *stock {
	rnd := rand.New(rand.NewPCG(seed, 1))
	s := &stock{manifests: map[digest.Digest]bool{}}
	for i := range blobs {
		size := int64(smallest * math.Exp(rnd.Float64()*math.Log(largest/smallest)))
		s.blobs = append(s.blobs, origin.Random(seed<<20+uint64(i)+1, size))
	}
	return s
}

// total returns the bytes of all blobs.
func (s *stock) total() (n int64) {
	for _, b := range s.blobs {
		n += b.Size
	}
	return n
}

func (s *stock) put(up *origin.Origin) {
	for _, b := range s.blobs {
		up.AddBlob(repository, b)
	}
	for i := range tags {
		s.move(up, i)
	}
}

// move has a tag lead to a new manifest.
func (s *stock) move(up *origin.Origin, tag int) {
	s.mu.Lock()
	s.serial++
	body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"annotations":{"serial":"%d"}}`, ocispec.MediaTypeImageManifest, s.serial)
	s.manifests[digest.FromBytes(body)] = true
	s.tagged[tag] = digest.FromBytes(body)
	s.mu.Unlock()
	up.AddManifest(repository, fmt.Sprintf("t%d", tag), ocispec.MediaTypeImageManifest, body)
}

// pick chooses a blob as real clients do: a few of them most of the time.
func (s *stock) pick(rnd *rand.Rand) *origin.Content {
	return s.blobs[int(math.Pow(rnd.Float64(), 3)*float64(len(s.blobs)))]
}

// known reports whether there ever was such a manifest.
func (s *stock) known(body []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.manifests[digest.FromBytes(body)]
}

// at returns what a tag leads to.
func (s *stock) at(tag int) digest.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tagged[tag]
}

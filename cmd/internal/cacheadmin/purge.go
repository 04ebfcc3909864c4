package cacheadmin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/index"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

// purge forgets what the request names.
func (s *Server) purge(w http.ResponseWriter, r *http.Request) {
	var p Purge
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&p); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	g, err := newGoing(p)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := s.scanned(r.Context()); err != nil {
		reply(w, nil, err)
		return
	}
	done, err := g.purge(s.parts)
	if s.parts.Purged != nil {
		err = errors.Join(err, s.parts.Purged(r.Context(), p, slices.Collect(maps.Keys(g.digests))))
	}
	reply(w, done, err)
}

// Purge forgets what another replica's operator had forgotten, and returns which blobs that
// named here. Purged is not told.
func (s *Server) Purge(ctx context.Context, p Purge) (Purged, []digest.Digest, error) {
	g, err := newGoing(p)
	if err != nil {
		return Purged{}, nil, err
	}
	if err := s.scanned(ctx); err != nil {
		return Purged{}, nil, err
	}
	done, err := g.purge(s.parts)
	return done, slices.Collect(maps.Keys(g.digests)), err
}

// image is what one of Purge.Images says.
type image struct {
	host, repository string
	reference        string // "": all of the repository
}

// going is what is to go.
type going struct {
	all     bool
	images  []image
	digests map[digest.Digest]bool
}

func newGoing(p Purge) (*going, error) {
	if !p.All && len(p.Digests)+len(p.Images) == 0 {
		return nil, errors.New("nothing is named that should be purged")
	}
	g := &going{all: p.All, digests: make(map[digest.Digest]bool)}
	for _, text := range p.Digests {
		d, err := digest.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("digest %q: %w", text, err)
		}
		g.digests[d] = true
	}
	for _, text := range p.Images {
		img, err := parseImage(text)
		if err != nil {
			return nil, err
		}
		g.images = append(g.images, img)
	}
	return g, nil
}

// parseImage parses HOST/REPOSITORY, with :TAG or @DIGEST behind it.
func parseImage(text string) (img image, err error) {
	host, rest, ok := strings.Cut(text, "/")
	rest, digested, _ := strings.Cut(rest, "@")
	rest, img.reference, _ = strings.Cut(rest, ":")
	if digested != "" { // which says more than a tag
		img.reference = digested
	}
	img.host, img.repository = strings.ToLower(host), rest
	if !ok || host == "" || rest == "" {
		return img, fmt.Errorf("%q is not HOST/REPOSITORY[:TAG|@DIGEST]", text)
	}
	return img, nil
}

// hit reports whether a link is named.
func (g *going) hit(k index.Key) bool {
	if g.all || g.digests[digest.Digest(k.Reference)] {
		return true
	}
	for _, img := range g.images {
		if img.host == k.Host && img.repository == k.Repository && (img.reference == "" || img.reference == k.Reference) {
			return true
		}
	}
	return false
}

// purge removes links first, then what they led to and what manifests among that
// name: a blob that another image has too is fetched again when it is wanted.
func (g *going) purge(parts Parts) (done Purged, err error) {
	for _, l := range parts.Index.Links() {
		if !g.hit(l.Key) && !g.digests[l.Descriptor.Digest] {
			continue
		}
		if parts.Index.Remove(l.Key) {
			done.Links++
		}
		if d := l.Descriptor.Digest; d != "" && !g.digests[d] {
			g.digests[d] = true
		}
	}
	if !g.all {
		g.addNamed(parts.Cache)
	}
	var errs []error
	for _, b := range parts.Cache.Blobs() {
		if !g.all && !g.digests[b.Descriptor.Digest] {
			continue
		}
		removed, err := parts.Cache.Remove(b.Key)
		errs = append(errs, err)
		if removed {
			done.Blobs++
			done.Bytes += b.Bytes
		}
		parts.Forget(b.Descriptor.Digest)
	}
	for d := range g.digests { // what was in memory only
		parts.Forget(d)
	}
	done.Permissions = parts.Permit.Forget(func(r permit.Resource) bool {
		return g.hit(index.Key{Host: r.Target.Host, Repository: r.Repository, Reference: r.Reference})
	})
	errs = append(errs, parts.Index.Flush())
	return done, errors.Join(errs...)
}

// addNamed adds what manifests that are to go name, and what those name that an
// index names.
func (g *going) addNamed(c *cache.Cache) {
	queue := make([]digest.Digest, 0, len(g.digests))
	for d := range g.digests {
		queue = append(queue, d)
	}
	for len(queue) > 0 {
		d := queue[0]
		queue = queue[1:]
		for _, named := range named(c, d) {
			if !g.digests[named] {
				g.digests[named] = true
				queue = append(queue, named)
			}
		}
	}
}

// maxManifest is how large a manifest may be to be looked into, in bytes.
const maxManifest = 4 << 20

// named returns what the manifest or index d, if it is one and there, names.
func named(c *cache.Cache, d digest.Digest) (out []digest.Digest) {
	x, ok := c.Find("", d)
	if !ok {
		return nil
	}
	defer x.Release()
	size := x.Descriptor().Size
	if !x.Verified() || size > maxManifest {
		return nil
	}
	text := make([]byte, size)
	if n, _ := x.ReadAt(text, 0); n < len(text) || text[0] != '{' {
		return nil
	}
	var doc struct {
		Config    ocispec.Descriptor   `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if json.Unmarshal(text, &doc) != nil {
		return nil
	}
	for _, desc := range append(append(doc.Layers, doc.Manifests...), doc.Config) {
		if desc.Digest.Validate() == nil {
			out = append(out, desc.Digest)
		}
	}
	return out
}

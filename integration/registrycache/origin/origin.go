// Package origin is a registry for trials of a registry cache: it stands where
// the upstream is, has private repositories of several users, counts what is
// asked of it and answers wrongly by rule, in the ways registries and the
// networks before them do.
package origin

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Origin is a running registry. Methods may be called concurrently.
type Origin struct {
	// Address is host:port of the API, plain http.
	Address string
	// Storage is host:port, on another address, of what redirects lead to.
	Storage string

	servers []*http.Server

	mu      sync.Mutex
	repos   map[string]*repository
	storage map[string]*object // by secret path
	users   *users
	rule    Rule
	release chan struct{}
	stats   Stats
	seen    []Request
}

// repository is what one name holds.
type repository struct {
	objects   map[string]*object // by "blobs/<digest>", "manifests/<reference>"
	tags      []string
	referrers map[digest.Digest][]byte // index of what refers to a digest
}

// object is a blob or a manifest.
type object struct {
	digest    digest.Digest
	mediaType string
	size      int64
	body      io.ReaderAt
}

// Listen starts an empty registry on loopback; Close ends it.
func Listen() (*Origin, error) {
	api, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting an origin: %w", err)
	}
	o, err := Serve(api)
	if err != nil {
		api.Close()
	}
	return o, err
}

// Serve is Listen with a listener of the caller's, which Close closes.
func Serve(api net.Listener) (*Origin, error) {
	// Another address of the machine, so that it is another host to clients.
	storage, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		return nil, fmt.Errorf("starting an origin's storage: %w", err)
	}
	o := &Origin{
		Address: api.Addr().String(),
		Storage: storage.Addr().String(),
		repos:   map[string]*repository{},
		storage: map[string]*object{},
		release: make(chan struct{}),
	}
	o.stats.Blobs = map[digest.Digest]Count{}
	for l, h := range map[net.Listener]http.HandlerFunc{api: o.serveAPI, storage: o.serveStorage} {
		s := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
		o.servers = append(o.servers, s)
		go s.Serve(l) //nolint:errcheck // ends with Close
	}
	return o, nil
}

// Close ends it and all connections.
func (o *Origin) Close() error {
	o.Release()
	var first error
	for _, s := range o.servers {
		if err := s.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// AddBlob puts a blob into a repository.
func (o *Origin) AddBlob(repo string, c *Content) {
	o.AddBlobAs(repo, c.Digest, c.Size, c)
}

// AddBlobAs puts bytes into a repository under a digest that need not be theirs.
func (o *Origin) AddBlobAs(repo string, d digest.Digest, size int64, body io.ReaderAt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.repo(repo).objects["blobs/"+d.String()] = &object{d, "application/octet-stream", size, body}
}

// AddManifest puts a manifest into a repository under its digest and, unless
// tag is empty, a tag.
func (o *Origin) AddManifest(repo, tag, mediaType string, body []byte) digest.Digest {
	d := digest.FromBytes(body)
	o.AddManifestAs(repo, d.String(), mediaType, d, body)
	if tag != "" {
		o.AddManifestAs(repo, tag, mediaType, d, body)
	}
	return d
}

// AddManifestAs puts a manifest under any reference and a digest that need not
// be its own.
func (o *Origin) AddManifestAs(repo, reference, mediaType string, d digest.Digest, body []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.repo(repo)
	r.objects["manifests/"+reference] = &object{d, mediaType, int64(len(body)), literal(body)}
	if !strings.Contains(reference, ":") && !slices.Contains(r.tags, reference) {
		r.tags = append(r.tags, reference)
	}
}

// AddReferrers sets the index that the referrers API answers for a digest.
func (o *Origin) AddReferrers(repo string, d digest.Digest, index []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.repo(repo).referrers[d] = index
}

// Remove deletes a "blobs/<digest>" or "manifests/<reference>".
func (o *Origin) Remove(repo, path string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.repo(repo).objects, path)
}

// repo returns a repository, made if need be. The lock is held.
func (o *Origin) repo(name string) *repository {
	r, ok := o.repos[name]
	if !ok {
		r = &repository{objects: map[string]*object{}, referrers: map[digest.Digest][]byte{}}
		o.repos[name] = r
	}
	return r
}

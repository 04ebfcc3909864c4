package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// registry is an upstream: a real HTTP server with repositories, readers, and
// faults to order. Its blobs may live on another host, to which it redirects.
type registry struct {
	*httptest.Server
	store *httptest.Server // where redirects lead

	mu     sync.Mutex
	repos  map[string]*repository
	log    []entry
	faults []*fault
	hold   chan struct{} // GETs of blobs send half and wait for it to close; nil: they do not
	served int64         // bytes of blob bodies
}

type repository struct {
	readers   []string // who may read; nil: everybody
	blobs     map[digest.Digest][]byte
	manifests map[string]typed // by tag and digest
	referrers map[digest.Digest]string
	redirect  bool // blobs are answered with a redirect
	filters   bool // referrers are filtered
	tags      []string
}

type typed struct {
	mediaType string
	body      []byte
}

type entry struct{ method, uri, auth, rng, accept, note string }

// fault is what happens to requests whose method and path it matches.
type fault struct {
	method, path string // parts of them
	count        int
	status       int
	header       http.Header
	body         string // with status
	cut          int    // bytes of the body after which the connection is cut; 0: it is not
	size         int    // another Content-Length than the body has, for a HEAD
	digest       string // of Docker-Content-Digest; "none": there is none
	replace      []byte // instead of the content
	contentType  string
	whole        bool // Range is ignored
	wait         chan struct{}
}

const secretQuery = "X-Signature=s3cr3t"

func newRegistry(t testing.TB) *registry {
	g := &registry{repos: make(map[string]*repository)}
	g.Server = httptest.NewServer(http.HandlerFunc(g.serve))
	g.store = httptest.NewServer(http.HandlerFunc(g.serveStore))
	t.Cleanup(g.Close)
	t.Cleanup(g.store.Close)
	return g
}

func (g *registry) host() string { u, _ := url.Parse(g.URL); return u.Host }

func (g *registry) repo(name string) *repository {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.repos[name]
	if r == nil {
		r = &repository{
			blobs: make(map[digest.Digest][]byte), manifests: make(map[string]typed), referrers: make(map[digest.Digest]string),
		}
		g.repos[name] = r
	}
	return r
}

func (g *registry) addBlob(repo string, data []byte) digest.Digest {
	r, d := g.repo(repo), digest.FromBytes(data)
	g.mu.Lock()
	defer g.mu.Unlock()
	r.blobs[d] = data
	return d
}

func (g *registry) addManifest(repo, tag, mediaType string, text []byte) digest.Digest {
	r, d := g.repo(repo), digest.FromBytes(text)
	g.mu.Lock()
	defer g.mu.Unlock()
	r.manifests[d.String()] = typed{mediaType, text}
	if tag != "" {
		r.manifests[tag] = typed{mediaType, text}
	}
	return d
}

func (g *registry) order(f *fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.faults = append(g.faults, f)
}

// requests returns what came since the last call.
func (g *registry) requests() []entry {
	g.mu.Lock()
	defer g.mu.Unlock()
	log := g.log
	g.log = nil
	return log
}

// count returns how many requests there were whose method and URI have this.
func (g *registry) count(method, uri string) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.log {
		if e.method == method && strings.Contains(e.uri, uri) {
			n++
		}
	}
	return n
}

func (g *registry) note(r *http.Request, note string) *fault {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.log = append(g.log, entry{
		r.Method, r.URL.RequestURI(), r.Header.Get("Authorization"), r.Header.Get("Range"), r.Header.Get("Accept"), note,
	})
	for i, f := range g.faults {
		if strings.Contains(r.Method, f.method) && strings.Contains(r.URL.Path, f.path) {
			if f.count--; f.count <= 0 {
				g.faults = slices.Delete(g.faults, i, i+1)
			}
			return f
		}
	}
	return &fault{}
}

// serveStore is the host blobs are redirected to. It knows nobody's credentials.
func (g *registry) serveStore(w http.ResponseWriter, r *http.Request) {
	f := g.note(r, "store")
	if f.status != 0 || r.Header.Get("Authorization") != "" || r.URL.RawQuery != secretQuery || r.Method != http.MethodGet {
		http.Error(w, "<Error>SignatureDoesNotMatch "+r.URL.String()+"</Error>", http.StatusForbidden)
		return
	}
	parts := strings.SplitN(r.URL.Path, "/", 3)
	g.mu.Lock()
	repo := g.repos[parts[2]]
	data := repo.blobs[digest.Digest(parts[1])]
	g.mu.Unlock()
	g.send(w, r, f, typed{"application/octet-stream", data}, "")
}

func (g *registry) serve(w http.ResponseWriter, r *http.Request) {
	f := g.note(r, "")
	if f.wait != nil {
		<-f.wait
	}
	for name, v := range f.header {
		w.Header()[name] = v
	}
	if f.status != 0 {
		w.WriteHeader(f.status)
		io.WriteString(w, f.body)
		return
	}
	user := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if r.URL.Path == "/v2/" {
		if user == "" {
			g.unauthorized(w, "")
			return
		}
		io.WriteString(w, "{}")
		return
	}
	name, kind, reference := split(r.URL.Path)
	g.mu.Lock()
	repo := g.repos[name]
	g.mu.Unlock()
	switch {
	case repo == nil:
		g.refuse(w, http.StatusNotFound, "NAME_UNKNOWN")
		return
	case repo.readers == nil || slices.Contains(repo.readers, user):
	case user == "":
		g.unauthorized(w, name)
		return
	default:
		g.refuse(w, http.StatusForbidden, "DENIED")
		return
	}
	g.serveKind(w, r, f, repo, kind, reference)
}

func split(path string) (name, kind, reference string) {
	parts := strings.Split(strings.TrimPrefix(path, "/v2/"), "/")
	n := len(parts)
	if n < 3 {
		return "", "", ""
	}
	return strings.Join(parts[:n-2], "/"), parts[n-2], parts[n-1]
}

func (g *registry) serveKind(w http.ResponseWriter, r *http.Request, f *fault, repo *repository, kind, reference string) {
	g.mu.Lock()
	m, isManifest := repo.manifests[reference]
	data, isBlob := repo.blobs[digest.Digest(reference)]
	list, isSubject := repo.referrers[digest.Digest(reference)]
	tags := repo.tags
	g.mu.Unlock()
	switch {
	case kind == "manifests" && isManifest:
		g.send(w, r, f, m, digest.FromBytes(m.body).String())
	case kind == "blobs" && isBlob && repo.redirect:
		name, _, _ := split(r.URL.Path)
		http.Redirect(w, r, g.store.URL+"/"+reference+"/"+name+"?"+secretQuery, http.StatusTemporaryRedirect)
	case kind == "blobs" && isBlob:
		g.send(w, r, f, typed{"application/octet-stream", data}, reference)
	case kind == "tags":
		g.sendTags(w, r, tags)
	case kind == "referrers" && isSubject:
		if repo.filters {
			w.Header().Set("OCI-Filters-Applied", "artifactType")
		}
		g.send(w, r, f, typed{ociIndex, []byte(list)}, "")
	case kind == "manifests":
		g.refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
	default:
		g.refuse(w, http.StatusNotFound, "BLOB_UNKNOWN")
	}
}

func (g *registry) sendTags(w http.ResponseWriter, r *http.Request, tags []string) {
	n, _ := strconv.Atoi(r.URL.Query().Get("n"))
	last := r.URL.Query().Get("last")
	start := slices.Index(tags, last) + 1
	page := tags[start:]
	if n > 0 && len(page) > n {
		page = page[:n]
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?n=%d&last=%s>; rel="next"`, g.URL, r.URL.Path, n, page[n-1]))
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"name":"x","tags":["%s"]}`, strings.Join(page, `","`))
}

func (g *registry) unauthorized(w http.ResponseWriter, name string) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="https://auth.example/token",service="example",scope="repository:`+name+`:pull"`)
	g.refuse(w, http.StatusUnauthorized, "UNAUTHORIZED")
}

func (g *registry) refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"says the registry"}]}`, code)
}

// send sends content with the fault.
func (g *registry) send(w http.ResponseWriter, r *http.Request, f *fault, c typed, sum string) {
	h := w.Header()
	if f.replace != nil {
		c.body = f.replace
	}
	if f.contentType != "" {
		c.mediaType = f.contentType
	}
	h.Set("Content-Type", c.mediaType)
	switch {
	case f.digest != "" && f.digest != "none":
		h.Set("Docker-Content-Digest", f.digest)
	case sum != "" && f.digest == "":
		h.Set("Docker-Content-Digest", sum)
	}
	body, status := c.body, http.StatusOK
	if rng := r.Header.Get("Range"); rng != "" && !f.whole && r.Method == http.MethodGet {
		var ok bool
		if body, ok = cutRange(c.body, rng, h); !ok {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		status = http.StatusPartialContent
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if f.size > 0 {
		h.Set("Content-Length", strconv.Itoa(f.size))
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	g.sendBody(w, f, body)
}

func (g *registry) sendBody(w http.ResponseWriter, f *fault, body []byte) {
	g.mu.Lock()
	hold := g.hold
	g.mu.Unlock()
	if hold != nil {
		half := len(body) / 2
		g.write(w, body[:half])
		_ = http.NewResponseController(w).Flush()
		<-hold
		body = body[half:]
	}
	if f.cut > 0 {
		g.write(w, body[:min(f.cut, len(body))])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	g.write(w, body)
}

func (g *registry) write(w io.Writer, p []byte) {
	n, _ := w.Write(p)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.served += int64(n)
}

// cutRange applies a Range header of one range.
func cutRange(body []byte, header string, h http.Header) ([]byte, bool) {
	spec := strings.TrimPrefix(header, "bytes=")
	a, b, _ := strings.Cut(spec, "-")
	size := len(body)
	first, last := 0, size-1
	if a == "" {
		n, _ := strconv.Atoi(b)
		first = max(0, size-n)
	} else {
		first, _ = strconv.Atoi(a)
		if b != "" {
			last, _ = strconv.Atoi(b)
		}
	}
	last = min(last, size-1)
	if first > last {
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		return nil, false
	}
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, size))
	return body[first : last+1], true
}

// doer reaches the registry as the daemon's client does: a GET follows
// redirects without credentials, a HEAD does not.
type doer struct{ tr http.RoundTripper }

func newDoer(t testing.TB) doer {
	tr := &http.Transport{MaxIdleConnsPerHost: 200, ResponseHeaderTimeout: 20 * time.Second}
	t.Cleanup(tr.CloseIdleConnections)
	return doer{tr}
}

func (d doer) Do(req *http.Request) (*http.Response, error) {
	c := http.Client{Transport: d.tr}
	if req.Method == http.MethodHead {
		c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	} else {
		c.CheckRedirect = func(next *http.Request, _ []*http.Request) error { next.Header.Del("Authorization"); return nil }
	}
	return c.Do(req)
}

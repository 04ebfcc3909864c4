package origin

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

var apiPath = regexp.MustCompile(`^/v2/(.+)/(blobs|manifests|tags|referrers)/([^/]+)$`)

// serveAPI is the registry.
func (o *Origin) serveAPI(w http.ResponseWriter, r *http.Request) {
	s := &statusWriter{ResponseWriter: w}
	defer func() { o.note(r, s.status) }()
	if r.URL.Path == "/token" {
		o.serveToken(s, r)
		return
	}
	o.mu.Lock()
	rule, release := o.rule, o.release
	o.mu.Unlock()
	var f Fault
	if rule != nil {
		f = rule(r)
	}
	m := apiPath.FindStringSubmatch(r.URL.Path)
	if m == nil && r.URL.Path == "/v2/" {
		m = []string{"", "", "", ""}
	}
	if m == nil || r.Method != http.MethodGet && r.Method != http.MethodHead {
		refuse(s, http.StatusNotFound)
		return
	}
	if !f.pause(r.Context(), release) {
		panic(http.ErrAbortHandler)
	}
	if f.Status != 0 {
		f.dress(s.Header())
		s.WriteHeader(f.Status)
		fmt.Fprint(s, f.Body)
		return
	}
	if status := o.allow(s, r, m[1]); status != 0 {
		refuse(s, status)
		return
	}
	o.serveResource(&answer{w: s, fault: f, release: release}, r, m[1], m[2], m[3])
}

// serveResource answers an allowed request.
func (o *Origin) serveResource(a *answer, r *http.Request, repo, kind, reference string) {
	if kind == "" {
		a.w.WriteHeader(http.StatusOK)
		return
	}
	o.mu.Lock()
	have := o.repos[repo]
	var obj *object
	var other []byte
	if have != nil {
		obj = have.objects[kind+"/"+reference]
		switch kind {
		case "tags":
			other, _ = json.Marshal(map[string]any{"name": repo, "tags": have.tags}) //nolint:errchkjson // strings
		case "referrers":
			other = have.referrers[digest.Digest(reference)]
		}
	}
	o.mu.Unlock()
	switch {
	case other != nil:
		a.w.Header().Set("Content-Type", map[string]string{
			"tags": "application/json", "referrers": "application/vnd.oci.image.index.v1+json",
		}[kind])
		a.fault.dress(a.w.Header())
		a.w.Write(other) //nolint:errcheck // the client sees it
	case obj == nil:
		refuse(a.w, http.StatusNotFound)
	default:
		o.serveObject(a, r, kind, obj)
	}
}

func (o *Origin) serveObject(a *answer, r *http.Request, kind string, obj *object) {
	to := a.fault.RedirectTo
	if a.fault.Redirect {
		to = o.presign(obj)
	}
	if to != "" && kind == "blobs" {
		http.Redirect(a.w, r, to, http.StatusTemporaryRedirect)
		return
	}
	o.count(obj.digest, func(s *Stats, c *Count) {
		if r.Method == http.MethodHead {
			s.Heads++
			c.Heads++
			return
		}
		s.Gets++
		c.Gets++
		if kind == "manifests" {
			s.Manifests++
		}
	})
	a.w.Header().Set("Docker-Content-Digest", obj.digest.String())
	o.sendObject(a, r, kind, obj)
}

// sendObject sends a body, or part of it, and counts it.
func (o *Origin) sendObject(a *answer, r *http.Request, kind string, obj *object) {
	off, end, status := int64(0), obj.size, http.StatusOK
	h := a.w.Header()
	h.Set("Content-Type", obj.mediaType)
	if kind == "blobs" {
		h.Set("Accept-Ranges", "bytes")
		h.Set("Etag", strconv.Quote(obj.digest.String()))
	}
	if from, to, ok := byteRange(r.Header.Get("Range"), obj.size); ok && kind == "blobs" && !a.fault.IgnoreRange {
		off, end = from+a.fault.Shift, min(to+a.fault.Shift, obj.size)
		if off >= end {
			refuse(a.w, http.StatusRequestedRangeNotSatisfiable)
			return
		}
		status = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, end-1, obj.size))
	}
	end -= min(a.fault.Truncate, end-off)
	if !a.fault.Unframed {
		h.Set("Content-Length", strconv.FormatInt(end-off, 10))
	} else {
		h.Set("Connection", "close")
		h.Set("Transfer-Encoding", "identity")
	}
	a.fault.dress(h)
	a.w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	a.count = func(n int64) {}
	if kind == "blobs" {
		a.count = func(n int64) {
			o.count(obj.digest, func(s *Stats, c *Count) { s.Bytes += n; c.Bytes += n })
		}
		o.count(obj.digest, func(s *Stats, _ *Count) {
			s.InFlight++
			s.MaxInFlight = max(s.MaxInFlight, s.InFlight)
		})
		defer o.count(obj.digest, func(s *Stats, _ *Count) { s.InFlight-- })
	}
	a.send(r.Context(), obj.body, off, end)
}

// byteRange parses "bytes=a-b" and "bytes=a-" into [from, to).
func byteRange(header string, size int64) (from, to int64, ok bool) {
	spec, ok := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !ok || !dash {
		return 0, 0, false
	}
	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil || from >= size {
		return 0, 0, false
	}
	to = size
	if last != "" {
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil || n < from {
			return 0, 0, false
		}
		to = min(n+1, size)
	}
	return from, to, true
}

// presign returns the URL of an object in storage, which holds a secret.
func (o *Origin) presign(obj *object) string {
	path := "/" + obj.digest.Encoded() + "?X-Signature=" + rand.Text()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.storage[path] = obj
	return "http://" + o.Storage + path
}

// serveStorage is what presigned URLs lead to. It refuses HEAD, which such
// URLs are not signed for, and a second kind of authorization.
func (o *Origin) serveStorage(w http.ResponseWriter, r *http.Request) {
	o.note(r, 0)
	o.mu.Lock()
	obj := o.storage[r.URL.RequestURI()]
	rule, release := o.rule, o.release
	leak := r.Header.Get("Authorization") != ""
	if leak {
		o.stats.Leaks++
	}
	o.mu.Unlock()
	if obj == nil || r.Method != http.MethodGet || leak {
		http.Error(w, "SignatureDoesNotMatch", http.StatusForbidden)
		return
	}
	o.count(obj.digest, func(s *Stats, c *Count) { s.Gets++; c.Gets++ })
	var f Fault
	if rule != nil {
		f = rule(r)
	}
	o.sendObject(&answer{w: w, fault: f, release: release}, r, "blobs", obj)
}

// refuse answers an error as registries do.
func refuse(w http.ResponseWriter, status int) {
	code := map[int]string{
		http.StatusUnauthorized: "UNAUTHORIZED", http.StatusForbidden: "DENIED",
		http.StatusNotFound: "NAME_UNKNOWN",
	}[status]
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"the origin says so"}]}`, code)
}

// dress applies the header fields of a fault.
func (f Fault) dress(h http.Header) {
	for k, v := range f.Header {
		if v == "" {
			h.Del(k)
			continue
		}
		h.Set(k, v)
	}
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// Unwrap lets http.ResponseController flush.
func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *statusWriter) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

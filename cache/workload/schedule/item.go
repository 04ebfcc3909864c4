package schedule

import (
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// bad is what the map says of what could not be pushed.
const bad = "bad"

// maxParts bounds how many uploads that were not ended are held the bytes of.
const maxParts = 1 << 18

// maxTag is how long a tag may be, of the distribution specification.
const maxTag = 128

// item returns what to send for a request, without when and whereto, or why nothing
// is.
func (s *Source) item(r *trace.Request) (load.Item, Reason) {
	t := r.Target()
	if s.cfg.Repository != "" && t.Repository != "" {
		t.Repository = s.cfg.Repository
	}
	it := load.Item{Kind: t.Kind, URI: r.URI, Size: r.Size, Off: r.Off, Len: r.Len}
	if s.cfg.Compat {
		return s.compat(it, t)
	}
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	// A ping that was refused is how a client learns what a registry wants.
	if r.Status >= 400 && (r.Status != http.StatusNotFound || !reads) && t.Kind != trace.Ping {
		return it, Refused
	}
	it.Absent = r.Status == http.StatusNotFound
	switch {
	case t.Kind == trace.Upload:
		return s.upload(it, r, t)
	case r.Method == http.MethodPut && t.Kind == trace.Manifest:
		return s.pushed(it, t), ""
	case !reads:
		return it, Unsupported
	}
	it.Op = load.Get
	// A client whose copy is still right gets no body, and there is no copy here.
	if r.Method == http.MethodHead || r.Status == http.StatusNotModified {
		it.Op = load.Head
	}
	return s.asked(it, t)
}

// asked returns the request for what is not pushed.
func (s *Source) asked(it load.Item, t trace.Target) (load.Item, Reason) {
	switch t.Kind {
	case trace.Ping:
		it.Path = "/v2/"
		return it, ""
	case trace.Tags:
		it.Path = "/v2/" + t.Repository + "/tags/list"
		return it, ""
	case trace.Blob, trace.Manifest:
		return s.read(it, t)
	case trace.Referrers:
		if isDigest(t.Reference) {
			it.Path = "/v2/" + t.Repository + "/referrers/" + t.Reference
			return it, ""
		}
	}
	return it, Unsupported
}

// isDigest reports whether a reference is one. Of the usual ones that is seen without
// a regular expression, which costs more than all else that is done here.
func isDigest(ref string) bool {
	hex, ok := strings.CutPrefix(ref, "sha256:")
	if !ok {
		return strings.IndexByte(ref, ':') > 0 && digest.Digest(ref).Validate() == nil
	}
	if len(hex) != 64 {
		return false
	}
	for i := range len(hex) {
		if c := hex[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// path returns where a blob or a manifest is that has the digest d, "" if that is not
// known.
func (s *Source) path(t trace.Target, d string) string {
	switch {
	case t.Kind == trace.Blob && d == "":
		return "/v2/" + t.Repository + "/blobs/" + t.Reference
	case t.Kind == trace.Blob || s.cfg.Blobs && s.cfg.Map != nil:
		return "/v2/" + t.Repository + "/blobs/" + d
	case isDigest(t.Reference), s.cfg.Repository != "" && s.cfg.Map != nil:
		// Tags of several repositories are one in a repository for all of them.
		return "/v2/" + t.Repository + "/manifests/" + d
	}
	return "/v2/" + t.Repository + "/manifests/" + t.Reference
}

// read returns the request for a blob or a manifest.
func (s *Source) read(it load.Item, t trace.Target) (load.Item, Reason) {
	d, known := s.cfg.Map[it.URI]
	switch {
	case s.cfg.Map == nil && isDigest(t.Reference):
		d = t.Reference
	case s.cfg.Map == nil: // a tag
	case d == bad:
		return it, Bad
	case !known && !it.Absent:
		return it, Unknown
	case !known: // what is not there is asked for by what nothing else has
		d = digest.FromString("absent " + it.URI).String()
	}
	it.Digest = digest.Digest(d)
	it.Path = s.path(t, d)
	if s.cfg.Map == nil && it.Len > 0 {
		// A part can only be compared with what was made to be pushed. To find that
		// this was not would cost the sender as much as making and hashing the whole.
		it.Digest = ""
	}
	return it, ""
}

// pushed returns the push of a manifest. It is fresh, so that it cannot go by the
// digest that was recorded; and a tag that is read in the trace stays what was pushed
// for it, so that what is read can be compared, in this run and the next.
func (s *Source) pushed(it load.Item, t trace.Target) load.Item {
	it.Op, it.Len = load.Push, 0
	if s.cfg.Blobs {
		it.Kind = trace.Upload
		it.Path = "/v2/" + t.Repository + "/blobs/uploads/"
		return it
	}
	const suffix = "-pushed"
	tag := t.Reference
	if _, read := s.cfg.Map[it.URI]; read || isDigest(tag) {
		_, hex, ok := strings.Cut(tag, ":")
		if ok {
			tag = hex
		}
		tag = tag[:min(len(tag), maxTag-len(suffix))] + suffix
	}
	it.Path = "/v2/" + t.Repository + "/manifests/" + tag
	return it
}

// upload returns a part of an upload, or all of it for the last part.
func (s *Source) upload(it load.Item, r *trace.Request, t trace.Target) (load.Item, Reason) {
	it.Len = 0
	it.Path = "/v2/" + t.Repository + "/blobs/uploads/"
	ops := map[string]load.Op{http.MethodPost: load.Start, http.MethodPatch: load.Append, http.MethodPut: load.Finish}
	var ok bool
	if it.Op, ok = ops[r.Method]; !ok {
		return it, Unsupported
	}
	if s.cfg.Uploads == Parts {
		return it, ""
	}
	own := trace.Parse(r.URI)
	key := hashOf(own.Repository, own.Reference[strings.LastIndexByte(own.Reference, '/')+1:])
	switch it.Op {
	case load.Append:
		s.parts[key] += max(r.Size, 0)
		for other := range s.parts { // of uploads that were given up, most likely
			if len(s.parts) <= maxParts {
				break
			}
			if other != key {
				delete(s.parts, other)
			}
		}
		return it, Part
	case load.Start:
		return it, Part
	}
	it.Op = load.Push
	it.Size = max(r.Size, 0) + s.parts[key]
	delete(s.parts, key)
	return it, ""
}

// compat returns what the original sent.
func (s *Source) compat(it load.Item, t trace.Target) (load.Item, Reason) {
	d, known := s.cfg.Map[it.URI]
	it.Len, it.Off = 0, 0
	switch {
	case t.Repository == "":
		return it, Unsupported
	case d == bad:
		return it, Bad
	case known:
		it.Op = load.Get
		if t.Kind == trace.Upload {
			it.Kind, t.Kind = trace.Blob, trace.Blob
		}
		return s.read(it, t)
	}
	it.Op, it.Kind = load.Push, trace.Upload
	it.Path = "/v2/" + t.Repository + "/blobs/uploads/"
	return it, ""
}

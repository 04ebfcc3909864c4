package permit

import (
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
)

// maxBody bounds how many bytes of a refusal's body are passed on.
const maxBody = 64 << 10

// passed are the headers of a refusal that are passed on.
var passed = []string{"Www-Authenticate", "Retry-After", "Ratelimit-Limit", "Ratelimit-Remaining"}

// verdict is what an answer means.
type verdict int

const (
	allowed verdict = iota
	denied          // 401, 403, 404: by this upstream, to this caller
	refused         // any other 4xx: says nothing about permission
	trouble         // 429, 5xx, and what no registry answers: no answer to what was asked
)

// judge reads an answer to HEAD, and closes it. A redirect is a permission: a
// registry sends to where its content lies whom it lets have it. (One behind a
// gate that redirects to a page to log in on must not be an upstream.)
func judge(r *Resource, resp *http.Response) (Decision, verdict) {
	defer resp.Body.Close()
	status := resp.StatusCode
	switch {
	case status >= 200 && status < 300:
		return allow(r, resp), allowed
	case isRedirect(status) && resp.Header.Get("Location") != "":
		d := Decision{Status: http.StatusOK}
		d.Descriptor.Digest, d.Descriptor.Size = referred(r), -1
		return d, allowed
	case status < 400 || status > 599:
		return Decision{Status: http.StatusBadGateway}, trouble
	}
	d := Decision{Status: status}
	for _, name := range passed {
		if v := resp.Header.Values(name); len(v) > 0 {
			if d.Header == nil {
				d.Header = make(http.Header, 1)
			}
			for _, text := range v {
				// A part of the whole head would keep all of it.
				d.Header[name] = append(d.Header[name], strings.Clone(text))
			}
		}
	}
	// What does not arrive of it is not missed: the status is the answer.
	d.Body, _ = io.ReadAll(io.LimitReader(resp.Body, maxBody))
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusNotFound:
		return d, denied
	case status == http.StatusTooManyRequests, status >= 500:
		return d, trouble
	}
	return d, refused
}

// isOfScope reports whether a refusal is of all that its caller has in a repository.
func isOfScope(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// referred returns the reference if it is a digest.
func referred(r *Resource) digest.Digest {
	hex, ok := strings.CutPrefix(r.Reference, "sha256:")
	if ok && isSHA256(hex) {
		return digest.Digest(r.Reference) // the usual one, without a regular expression
	}
	if d, err := digest.Parse(r.Reference); err == nil {
		return d
	}
	return ""
}

func isSHA256(hex string) bool {
	if len(hex) != 64 {
		return false
	}
	for _, c := range []byte(hex) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// allow returns what a 2xx says.
func allow(r *Resource, resp *http.Response) Decision {
	d := Decision{Status: http.StatusOK}
	d.Descriptor.Digest = referred(r)
	if d.Descriptor.Digest == "" {
		if said, err := digest.Parse(resp.Header.Get("Docker-Content-Digest")); err == nil {
			d.Descriptor.Digest = digest.Digest(strings.Clone(string(said)))
		}
	}
	d.Descriptor.Size = max(resp.ContentLength, -1)
	if resp.StatusCode != http.StatusOK {
		d.Descriptor.Size = -1
	}
	if mt, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err == nil {
		d.Descriptor.MediaType = strings.Clone(mt)
	}
	return d
}

package accesslog

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/reprise-containers/reprise/cache/proxy"
)

// tokens replaces names. The same name becomes the same token, as long as the salt
// is the same, and without it a token can not be tried out against names.
type tokens struct{ salt []byte }

func newTokens(salt []byte) *tokens { return &tokens{salt} }

func (t *tokens) of(name string) string {
	if name == "" {
		return ""
	}
	h := hmac.New(sha256.New, t.salt)
	h.Write([]byte(name))
	return hex.EncodeToString(h.Sum(nil)[:4])
}

// record replaces everything that names somebody or something. What kind of request
// it was stays in the path.
func (t *tokens) record(r proxy.Record) proxy.Record {
	r.Host, r.Upstream = t.of(r.Host), t.of(r.Upstream)
	r.RemoteAddr = t.of(client(r.RemoteAddr))
	parts := strings.Split(r.Repo, "/")
	for i, p := range parts {
		parts[i] = t.of(p)
	}
	r.Repo, r.Reference = strings.Join(parts, "/"), t.of(r.Reference)
	switch r.Kind {
	case proxy.KindBase:
		r.Path = "/v2/"
	case proxy.KindTags:
		r.Path = "/v2/" + r.Repo + "/tags/list"
	case proxy.KindManifest, proxy.KindBlob, proxy.KindReferrers:
		r.Path = "/v2/" + r.Repo + "/" + r.Kind + "/" + r.Reference
	default:
		r.Path = "/" + t.of(r.Path)
	}
	return r
}

// requestID returns 10 hexadecimal digits that no other request has.
func requestID() string {
	var b [5]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

package origin

import (
	"encoding/base64"
	"strings"
)

// Secrets returns everything that whoever forwards requests must not keep:
// tokens, passwords in either form, signatures of presigned URLs.
func (o *Origin) Secrets() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []string
	for path := range o.storage {
		_, signature, _ := strings.Cut(path, "X-Signature=")
		out = append(out, signature)
	}
	if o.users == nil {
		return out
	}
	for header := range o.users.tokens {
		out = append(out, strings.TrimPrefix(header, "Bearer "))
	}
	for name, password := range o.users.passwords {
		out = append(out, password, base64.StdEncoding.EncodeToString([]byte(name+":"+password)))
	}
	return out
}

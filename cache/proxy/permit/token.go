package permit

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strings"
	"time"
)

// expiry returns when the credential ends by its own account: the exp of a JSON Web
// Token (RFC 7519 section 4.1.4) that is a bearer token or the password of Basic;
// false if it does not say. The signature is not looked at: a caller that lies only
// has its own permissions end sooner.
func expiry(auth Secret) (time.Time, bool) {
	scheme, token, _ := strings.Cut(string(auth), " ")
	token = strings.TrimSpace(token)
	switch strings.ToLower(scheme) {
	case "bearer":
	case "basic":
		plain, err := base64.StdEncoding.DecodeString(token)
		if err != nil {
			return time.Time{}, false
		}
		_, token, _ = strings.Cut(string(plain), ":")
	default:
		return time.Time{}, false
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return time.Time{}, false
	}
	var claims struct {
		Exp *float64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Exp == nil {
		return time.Time{}, false
	}
	return time.Unix(int64(min(max(*claims.Exp, 0), math.MaxInt32*8)), 0), true
}

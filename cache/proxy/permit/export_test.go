package permit

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// CredentialHash is what a Checker knows a credential by.
func CredentialHash(c *Checker, auth Secret) [32]byte { return c.salt.credential(auth) }

// Expiry returns when a credential ends.
func Expiry(auth Secret) (time.Time, bool) { return expiry(auth) }

// NameOf returns what a permission is shared by.
func NameOf(c *Checker, r Resource, auth Secret) Name {
	k := c.id(&r, auth)
	return c.share.name(&k, auth)
}

// HashOf returns the HMAC of fields.
func HashOf(c *Checker, fields ...string) [32]byte { return c.share.hash(fields...) }

// Reread parses a shared value without its MAC and writes it again.
func Reread(b []byte) ([]byte, error) {
	v, err := parseValue(b)
	if err != nil {
		return nil, err
	}
	return v.append(nil)
}

// Sealed returns the value that a replica would share under epoch 1, if it said d.
func Sealed(c *Checker, r Resource, auth Secret, d digest.Digest) []byte {
	n := NameOf(c, r, auth)
	v := value{life: time.Minute, expires: time.Now().Add(time.Minute)}
	v.desc.Digest = d
	b, err := c.share.seal(&n, 1, &v)
	if err != nil {
		panic(err)
	}
	return b
}

// Shared value limits.
const (
	MaxUntold = maxUntold
	MACSize   = 32
)

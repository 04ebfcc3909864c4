package permit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

// name returns the name of a resource for a credential. No other credential, target,
// repository or resource has the same.
func (s *sharing) name(k *id, auth Secret) Name {
	var n Name
	n.Scope = s.hash("scope", string(auth), k.scope.target.Scheme, k.scope.target.Host, k.scope.repository)
	n.Item = s.hash("item", string(n.Scope[:]), k.item.kind, k.item.reference, k.item.accept)
	return n
}

// hash returns the HMAC of fields, each with its length before it, so that no two lists
// of them are hashed as the same bytes.
func (s *sharing) hash(fields ...string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, s.names)
	var n [8]byte
	for _, f := range fields {
		binary.BigEndian.PutUint64(n[:], uint64(len(f)))
		h.Write(n[:])
		h.Write([]byte(f))
	}
	h.Sum(sum[:0])
	return sum
}

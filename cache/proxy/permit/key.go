package permit

import (
	"crypto/rand"
	"crypto/sha256"
	"strings"

	"github.com/reprise-containers/reprise/cache/proxy/route"
)

// credential is a salted hash of an Authorization header. Without the salt, which
// ends with the process, it says nothing of weak passwords either.
type credential [sha256.Size]byte

// salt is what a Checker hashes credentials with.
type salt [sha256.Size]byte

func newSalt() (s salt) {
	_, _ = rand.Read(s[:]) // never fails
	return s
}

// credential hashes auth without garbage up to the usual length of tokens.
func (s *salt) credential(auth Secret) credential {
	var space [4096]byte
	b := append(space[:0], s[:]...)
	b = append(b, auth...)
	return sha256.Sum256(b)
}

// scope is what a caller may read of an upstream: what a 401 or 403 is about.
type scope struct {
	target     route.Target
	repository string
	caller     credential
}

// item is a resource of a scope.
type item struct{ kind, reference, accept string }

// id is what a permission is for.
type id struct {
	scope scope
	item  item
}

func (c *Checker) id(r *Resource, auth Secret) id {
	k := id{
		scope{r.Target, r.Repository, c.salt.credential(auth)},
		item{r.Kind, r.Reference, r.Accept},
	}
	if r.Kind == "blobs" {
		k.item.accept = "" // a blob has one form
	}
	return k
}

// resource returns what the id is of.
func (k *id) resource() Resource {
	return Resource{
		Target: k.scope.target, Repository: k.scope.repository,
		Kind: k.item.kind, Reference: k.item.reference, Accept: k.item.accept,
	}
}

// clone returns the id without what it shares with a request, of which it would
// keep more.
func (k *id) clone() id {
	c := *k
	c.scope.repository = strings.Clone(k.scope.repository)
	c.item.kind = strings.Clone(k.item.kind)
	c.item.reference = strings.Clone(k.item.reference)
	c.item.accept = strings.Clone(k.item.accept)
	return c
}

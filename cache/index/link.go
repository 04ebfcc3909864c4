// Package index knows which request leads to which content: the manifest that a
// tag of a repository was at last, the repositories a digest was served from.
//
// Each link is a file of its own, named after the SHA-256 of the request, so names
// that clients send never reach the file system and there is no file whose loss is
// the loss of all. A link says what was true when it was checked; whether a caller
// may see it is decided elsewhere, each time.
package index

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
	"unique"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Kinds of requests, as the distribution API's paths have them.
const (
	KindManifests = "manifests"
	KindBlobs     = "blobs"
	KindTags      = "tags"
	KindReferrers = "referrers"
)

// Key is a request as far as its answer depends on it.
type Key struct {
	Scheme     string `json:"scheme"` // of the upstream
	Host       string `json:"host"`   // of the upstream, with the port if it is not the scheme's
	Repository string `json:"repository"`
	Kind       string `json:"kind"`
	Reference  string `json:"reference"`        // tag or digest
	Accept     string `json:"accept,omitempty"` // class of the Accept header, where it matters
}

func (k Key) parts() [6]string {
	return [6]string{k.Scheme, k.Host, k.Repository, k.Kind, k.Reference, k.Accept}
}

// ID returns what the link is kept under: the SHA-256 of the canonical form of the
// request, in hexadecimal. In that form each part has its length before it, so no
// two keys have the same, whatever bytes are in them.
func (k Key) ID() string { return k.sum().String() }

func (k Key) sum() id {
	var buf [256]byte
	canonical := buf[:0]
	for _, s := range k.parts() {
		canonical = binary.AppendUvarint(canonical, uint64(len(s)))
		canonical = append(canonical, s...)
	}
	return sha256.Sum256(canonical)
}

// id is Key.ID in binary.
type id [sha256.Size]byte

func (i id) String() string { return hex.EncodeToString(i[:]) }

// idOf returns the ID that s is the text of, as Key.ID writes it.
func idOf(s string) (i id, ok bool) {
	if len(s) != hex.EncodedLen(len(i)) {
		return i, false
	}
	_, err := hex.Decode(i[:], []byte(s))
	return i, err == nil && i.String() == s // no capitals
}

// Link says what a request led to.
type Link struct {
	Key        Key                `json:"key"`
	Descriptor ocispec.Descriptor `json:"descriptor"`
	Header     map[string]string  `json:"header,omitempty"` // of the answer, what else is to be repeated

	FetchedAt time.Time `json:"fetchedAt"` // when the content came
	CheckedAt time.Time `json:"checkedAt"` // when the upstream last said so
	LastUsed  time.Time `json:"-"`         // the modification time of the file
}

const (
	version   = 1
	fileLimit = 64 << 10 // bytes
)

// file is a link as it is on disk.
type file struct {
	Version int `json:"version"`
	Link
}

func encode(l Link) ([]byte, error) { return json.Marshal(file{version, l}) }

// check refuses a link that would not be the same after it was written and read.
func check(l Link) error {
	for _, s := range l.Key.parts() {
		if !utf8.ValidString(s) {
			return errors.New("a key that is not text")
		}
	}
	for name, value := range l.Header {
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return errors.New("a header that is not text")
		}
	}
	if d := l.Descriptor.Digest; d != "" && d.Validate() != nil {
		return errors.New("an invalid digest")
	}
	if l.Descriptor.Size < 0 {
		return fmt.Errorf("a size of %d bytes", l.Descriptor.Size)
	}
	data, err := encode(l)
	if err == nil && len(data) > fileLimit {
		err = fmt.Errorf("%d bytes are more than %d", len(data), fileLimit)
	}
	return err
}

// parse reads a file and refuses one that can't be the link of want.
func parse(data []byte, want id) (Link, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return Link{}, err
	}
	switch got := f.Key.sum(); {
	case f.Version != version:
		return Link{}, fmt.Errorf("version %d, not %d", f.Version, version)
	case got != want:
		return Link{}, fmt.Errorf("it is the link of %s, not of %s", got, want)
	case f.Descriptor.Size < 0:
		return Link{}, fmt.Errorf("a size of %d bytes", f.Descriptor.Size)
	case f.Descriptor.Digest != "" && f.Descriptor.Digest.Validate() != nil:
		return Link{}, errors.New("an invalid digest")
	}
	return f.Link, nil
}

// interned returns l with the texts that many links share kept once.
func interned(l Link) Link {
	k := &l.Key
	for _, s := range []*string{&k.Scheme, &k.Host, &k.Repository, &k.Kind, &k.Accept, &l.Descriptor.MediaType} {
		*s = unique.Make(*s).Value()
	}
	if string(l.Descriptor.Digest) == k.Reference {
		l.Descriptor.Digest = digest.Digest(k.Reference)
	}
	return l
}

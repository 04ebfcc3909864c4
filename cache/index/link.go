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
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

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

// ID returns what the link is kept under: the SHA-256 of the canonical form of the
// request, in hexadecimal.
func (k Key) ID() string {
	canonical, err := json.Marshal([]string{k.Scheme, k.Host, k.Repository, k.Kind, k.Reference, k.Accept})
	if err != nil {
		panic(err) // strings can be marshalled
	}
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:])
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

// parse reads a file and refuses one that can't be the link of id.
func parse(data []byte, id string) (Link, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return Link{}, err
	}
	switch {
	case f.Version != version:
		return Link{}, fmt.Errorf("version %d, not %d", f.Version, version)
	case f.Key.ID() != id:
		return Link{}, fmt.Errorf("it is the link of %s, not of %s", f.Key.ID(), id)
	case f.Descriptor.Size < 0:
		return Link{}, fmt.Errorf("a size of %d bytes", f.Descriptor.Size)
	case f.Descriptor.Digest != "" && f.Descriptor.Digest.Validate() != nil:
		return Link{}, errors.New("an invalid digest")
	}
	return f.Link, nil
}

// valid reports whether id is a name that ID returns.
func valid(id string) bool {
	return digest.NewDigestFromEncoded(digest.SHA256, id).Validate() == nil
}

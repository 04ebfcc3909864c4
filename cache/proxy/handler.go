package proxy

import (
	"net/http"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Doer sends requests upstream. It follows the redirects of a GET, never with
// the Authorization to another host, and none of a HEAD.
type Doer interface {
	Do(req *http.Request) (*http.Response, error)
}

// Manifest is a manifest that is served, for those who want to prepare for the
// requests that follow it.
type Manifest struct {
	Origin     string // to hold its blobs in the cache with
	Repository string
	Reference  string // that was asked for, tag or digest
	Descriptor ocispec.Descriptor
	Body       []byte // not to be changed
}

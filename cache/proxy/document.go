package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's that have an equivalent of OCI's.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerSchema1  = "application/vnd.docker.distribution.manifest.v1+json"
	dockerSigned1  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// document is what the text of a manifest says of itself.
type document struct {
	mediaType string // its own mediaType field, "" if it has none
	isIndex   bool   // has manifests
	isImage   bool   // has config or layers, or blobs of an artifact
	isSchema1 bool   // has fsLayers
}

var errNotManifest = errors.New("not a manifest")

// parseDocument looks at what kind of manifest text is.
func parseDocument(text []byte) (document, error) {
	var d struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Config    json.RawMessage `json:"config"`
		Layers    json.RawMessage `json:"layers"`
		Blobs     json.RawMessage `json:"blobs"`
		FSLayers  json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return document{}, fmt.Errorf("%w: %w", errNotManifest, err)
	}
	return document{
		mediaType: d.MediaType,
		isIndex:   present(d.Manifests),
		isImage:   present(d.Config) || present(d.Layers) || present(d.Blobs),
		isSchema1: present(d.FSLayers),
	}, nil
}

func present(field json.RawMessage) bool { return len(field) > 0 && string(field) != "null" }

// typed returns the media type to serve the document as when the upstream says
// that it is contentType. A document can not be served as what it does not say
// it is, nor as two things at once, since who reads it as the one would find
// other content than who reads it as the other (CVE-2021-41190). An upstream
// that says nothing of use is corrected by the document.
func (d document) typed(contentType string) (string, error) {
	mt, _, err := mime.ParseMediaType(contentType)
	if contentType == "" || err == nil && isGeneric(mt) {
		if d.mediaType == "" {
			return "", fmt.Errorf("%w: the upstream calls it %q and it says nothing of itself", errNotManifest, contentType)
		}
		mt, err = strings.ToLower(d.mediaType), nil
	}
	if err != nil {
		return "", fmt.Errorf("%w: Content-Type %.100q is not understood", errNotManifest, contentType)
	}
	if d.mediaType != "" && !strings.EqualFold(d.mediaType, mt) {
		return "", fmt.Errorf("%w: the upstream calls it %q, but it says that it is %.100q", errNotManifest, mt, d.mediaType)
	}
	if d.mediaType != "" {
		mt = d.mediaType
	}
	if kinds := count(d.isIndex, d.isImage, d.isSchema1); kinds > 1 {
		return "", fmt.Errorf("%w: a document with the fields of several kinds of manifests", errNotManifest)
	}
	if d.contradicts(mt) {
		return "", fmt.Errorf("%w: a document called %q with the fields of another kind", errNotManifest, mt)
	}
	return mt, nil
}

// contradicts reports whether the document has fields that the media type has not.
func (d document) contradicts(mt string) bool {
	return isIndexType(mt) && (d.isImage || d.isSchema1) ||
		isImageType(mt) && (d.isIndex || d.isSchema1) ||
		isSchema1Type(mt) && (d.isIndex || d.isImage)
}

func isGeneric(mt string) bool {
	switch mt {
	case "application/json", "application/octet-stream", "binary/octet-stream", "text/plain":
		return true
	}
	return false
}

func isIndexType(mt string) bool { return mt == ocispec.MediaTypeImageIndex || mt == dockerList }
func isImageType(mt string) bool { return mt == ocispec.MediaTypeImageManifest || mt == dockerManifest }

func isSchema1Type(mt string) bool { return mt == dockerSchema1 || mt == dockerSigned1 }

func count(flags ...bool) (n int) {
	for _, f := range flags {
		if f {
			n++
		}
	}
	return n
}

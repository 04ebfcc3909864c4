package source_test

import (
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
)

func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"sha256:1","size":-1}]}`))
	f.Add([]byte(`{"config":{"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		doc, err := source.ParseDocument(ocispec.Descriptor{}, text)
		if err != nil {
			return
		}
		for _, d := range append(doc.Blobs(), doc.Children...) {
			if d.Digest.Validate() != nil || d.Size < 0 {
				t.Errorf("%+v passes", d)
			}
		}
	})
}

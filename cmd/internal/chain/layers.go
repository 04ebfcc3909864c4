package chain

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/remote/blob"
)

// OpenLayers opens the layers of img, bottom first: local ones from their files,
// which done closes, the others by open.
func OpenLayers(open func(ref string, desc ocispec.Descriptor) (blob.Blob, error), img backstore.Image) (layers []blob.ReaderAt, done func(), err error) {
	var files []*blob.File
	done = func() {
		for _, f := range files {
			f.Close()
		}
	}
	for _, l := range img.Layers {
		if l.Remote() {
			b, err := open(img.Ref, l.Descriptor())
			if err != nil {
				done()
				return nil, nil, err
			}
			layers = append(layers, b)
			continue
		}
		f, err := blob.OpenFile(l.File)
		if err != nil {
			done()
			return nil, nil, err
		}
		files = append(files, f)
		layers = append(layers, f)
	}
	return layers, done, nil
}

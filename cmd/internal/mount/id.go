package mount

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/remote/blob"
)

// ID returns an ID for the content of img: equal for equal layers.
func ID(img *source.Image) string {
	h := sha256.New()
	for _, l := range img.Layers {
		fmt.Fprintf(h, "%s %d\n", blob.Name(l), l.Size())
	}
	return "image-" + hex.EncodeToString(h.Sum(nil)[:16])
}

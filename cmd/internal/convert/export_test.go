package convert

import (
	"io"
	"math"

	"github.com/opencontainers/go-digest"
)

// ChangeConfig parses a config and replaces its diff IDs.
func ChangeConfig(text []byte, layers int, ids []digest.Digest) ([]byte, error) {
	if _, err := parseConfig(text, layers); err != nil {
		return nil, err
	}
	d, err := withDiffIDs(text, ids)
	return d.text, err
}

// Decompress decompresses r, up to limit bytes.
func Decompress(r io.Reader, limit int64) (io.ReadCloser, error) {
	c := &counter{r: r}
	plain, err := decompress(c)
	if err != nil {
		return nil, err
	}
	limits := Limits{LayerSize: limit, Ratio: math.MaxInt64, RatioFrom: limit}
	return struct {
		io.Reader
		io.Closer
	}{&limited{r: plain, limits: limits, compressed: c}, plain}, nil
}

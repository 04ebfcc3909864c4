package convert_test

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/convert"
)

// A config that passes keeps everything but its diff IDs.
func FuzzConfig(f *testing.F) {
	id := digest.FromString("a layer")
	f.Add([]byte(`{"os":"linux","rootfs":{"type":"layers","diff_ids":["` + id.String() + `"]},"history":[{"x":"<&>"}]}`))
	f.Add([]byte(`{"rootfs":{"diff_ids":["` + id.String() + `"]},"Rootfs":null,"a":1e400,"a":"\u2028"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		want := []digest.Digest{digest.FromString("converted")}
		got, err := convert.ChangeConfig(text, 1, want)
		if err != nil {
			return
		}
		var config ocispec.Image
		if err := json.Unmarshal(got, &config); err == nil && !slices.Equal(config.RootFS.DiffIDs, want) {
			t.Errorf("%s became %s", text, got)
		}
		again, err := convert.ChangeConfig(got, 1, want)
		if err != nil || !bytes.Equal(got, again) {
			t.Errorf("%s became %s, and that %s, %v", text, got, again, err)
		}
	})
}

func FuzzDecompress(f *testing.F) {
	for _, compress := range []func([]byte) []byte{gzipped, zstded, bytes.Clone} {
		f.Add(compress([]byte("some bytes of a layer")))
	}
	f.Add([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7})
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 1 << 20
		r, err := convert.Decompress(bytes.NewReader(data), limit)
		if err != nil {
			return
		}
		defer r.Close()
		if n, _ := io.Copy(io.Discard, r); n > limit {
			t.Errorf("%d bytes came through a limit of %d", n, limit)
		}
	})
}

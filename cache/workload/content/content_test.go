package content_test

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/workload/content"
)

func body(t testing.TB, m *content.Maker, uri string, size int64) []byte {
	t.Helper()
	b, err := io.ReadAll(m.Body(uri, size))
	if err != nil || int64(len(b)) != size {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	return b
}

// Blobs of one name in several repositories are one, and other things are not.
func TestName(t *testing.T) {
	m := content.New(1, false)
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"v2/a/blobs/x", "v2/b/c/blobs/x", true},
		{"v2/a/blobs/x", "v2/a/blobs/y", false},
		{"v2/a/blobs/x", "v2/blobs/blobs/x", true},
		{"v2/a/manifests/x", "v2/b/manifests/x", false},
		{"v2/a/manifests/x", "v2/a/blobs/x", false},
		{"v2/a/blobs/uploads/x", "v2/b/blobs/uploads/x", false},
		{"u", "w", false},
	} {
		if same := bytes.Equal(body(t, m, c.a, 100), body(t, m, c.b, 100)); same != c.same {
			t.Errorf("%s is %s: %v", c.a, c.b, same)
		}
	}
}

// Content is another for another URI, size or seed, does not compress, and can be
// read from anywhere.
func TestBody(t *testing.T) {
	seen := map[digest.Digest]string{}
	for _, seed := range []uint64{0, 1} {
		m := content.New(seed, false)
		for _, uri := range []string{"v2/a/blobs/b", "v2/a/blobs/c"} {
			for _, size := range []int64{0, 1, 8, 9, 15, 16, 17, 4096, 100_003} {
				what := fmt.Sprint(seed, uri, size)
				b := body(t, m, uri, size)
				if err := iotest.TestReader(m.Body(uri, size), b); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				d, err := m.Digest(t.Context(), uri, size)
				if err != nil || d != digest.FromBytes(b) {
					t.Errorf("%s: %s, %v", what, d, err)
				}
				if other := seen[d]; other != "" && size > 1 {
					t.Errorf("%s is %s", what, other)
				}
				seen[d] = what
				var z bytes.Buffer
				w, _ := flate.NewWriter(&z, flate.BestCompression)
				w.Write(b)
				w.Close()
				if int64(z.Len()) < size {
					t.Errorf("%s: compresses to %d bytes", what, z.Len())
				}
			}
		}
	}
	if b := body(t, content.New(1, true), "v2/a/blobs/b", 1000); !bytes.Equal(b, make([]byte, 1000)) {
		t.Error("zeros are something else")
	}
}

// Content goes on where the counter begins anew, wholly or in its lower half.
func TestCounter(t *testing.T) {
	m := content.New(1, false)
	for from := range 16 {
		var start [16]byte
		for i := from; i < 16; i++ {
			start[i] = 0xff
		}
		start[15] -= 3
		all, err := io.ReadAll(m.BodyFrom(start, 160))
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(m.BodyFrom(start, 160), all); err != nil {
			t.Errorf("%x: %v", start, err)
		}
		for off := range all {
			b := m.BodyFrom(start, 160)
			if _, err := b.Seek(int64(off), io.SeekStart); err != nil {
				t.Fatal(err)
			}
			if rest, _ := io.ReadAll(b); !bytes.Equal(rest, all[off:]) {
				t.Fatalf("%x: it is another from %d", start, off)
			}
		}
	}
}

// There are places to seek to and others.
func TestSeek(t *testing.T) {
	b := content.New(1, false).Body("u", 100)
	for _, c := range []struct {
		off    int64
		whence int
		want   int64 // -1: an error
	}{{10, io.SeekStart, 10}, {-1, io.SeekCurrent, 9}, {-10, io.SeekCurrent, -1}, {-1, io.SeekEnd, 99}, {5, io.SeekEnd, 105}, {0, io.SeekCurrent, 105}, {0, 7, -1}, {-1, io.SeekStart, -1}} {
		n, err := b.Seek(c.off, c.whence)
		if (err != nil) != (c.want < 0) || err == nil && n != c.want {
			t.Errorf("%d, %d: %d, %v", c.off, c.whence, n, err)
		}
	}
	if n, err := b.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %d, %v", n, err)
	}
}

// FuzzImage makes images of any names and sizes: they are JSON that means what went
// in.
func FuzzImage(f *testing.F) {
	f.Add("v2/a/manifests/b", int64(2000), 3)
	f.Add("v2/\xff\"<>&\u2028/manifests/c", int64(-1), 0)
	f.Add("", int64(4<<20+1), 127)
	f.Fuzz(func(t *testing.T, uri string, size int64, n int) {
		if size > 1<<20 && size <= 4<<20 || n < 0 || n > 200 {
			return // slow, and not another case
		}
		m := content.New(1, false)
		var layers []ocispec.Descriptor
		for i := range n {
			layers = append(layers, ocispec.Descriptor{MediaType: content.LayerType, Digest: digest.FromString(fmt.Sprint(i)), Size: int64(i)})
		}
		small, err := m.Image(uri, -1, layers)
		if err != nil {
			t.Fatal(err)
		}
		img, err := m.Image(uri, size, layers)
		if err != nil {
			t.Fatal(err)
		}
		// The padding has a name, too.
		if least := int64(len(small.Manifest)); size >= least+50 && size <= 4<<20 && int64(len(img.Manifest)) != size || size < least && int64(len(img.Manifest)) != least {
			t.Errorf("%d bytes, want %d, at least %d", len(img.Manifest), size, least)
		}
		var got ocispec.Manifest
		if err := json.Unmarshal(img.Manifest, &got); err != nil || len(got.Layers) != n || got.Config.Digest != digest.FromBytes(img.Config) {
			t.Errorf("%v: %s", err, img.Manifest)
		}
	})
}

// What was pushed once is known again: content must not change between versions.
func TestPinned(t *testing.T) {
	d, err := content.New(42, false).Digest(t.Context(), "v2/4715bf52/437c49db/blobs/93054319", 1<<20)
	if err != nil || d != "sha256:5e2576e69fbe9edc4bd21beba4c696bad18079fe7f83700babea59c38d53f20b" {
		t.Errorf("%s, %v", d, err)
	}
}

// Manifests are real, list the layers and are as long as recorded.
func TestImage(t *testing.T) {
	m := content.New(1, false)
	layers := []ocispec.Descriptor{{MediaType: content.LayerType, Digest: digest.FromString("l"), Size: 7}}
	seen := map[digest.Digest]bool{}
	for _, uri := range []string{"v2/a/manifests/b", `v2/a/manifests/"<c>`} {
		for _, size := range []int64{0, 100, 3000, 3001, 70_000} {
			img, err := m.Image(uri, size, layers)
			if err != nil {
				t.Fatal(err)
			}
			if size >= 3000 && int64(len(img.Manifest)) != size || size < 3000 && len(img.Manifest) > 1000 {
				t.Errorf("%s: %d bytes, recorded were %d", uri, len(img.Manifest), size)
			}
			var got ocispec.Manifest
			if err := json.Unmarshal(img.Manifest, &got); err != nil {
				t.Fatal(err)
			}
			if got.SchemaVersion != 2 || got.MediaType != ocispec.MediaTypeImageManifest || len(got.Layers) != 1 || got.Layers[0].Digest != layers[0].Digest ||
				got.Config.Digest != digest.FromBytes(img.Config) || got.Config.Size != int64(len(img.Config)) {
				t.Errorf("%s", img.Manifest)
			}
			again, _ := m.Image(uri, size, layers)
			if !bytes.Equal(again.Manifest, img.Manifest) {
				t.Error("a manifest is another the second time")
			}
			if d := digest.FromBytes(img.Manifest); size != 100 {
				if seen[d] {
					t.Errorf("%s, %d bytes: is there already", uri, size)
				}
				seen[d] = true
			}
		}
	}
}

func BenchmarkBody(b *testing.B) {
	m := content.New(1, false)
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(buf)))
	r := m.Body("u", 1<<60)
	for b.Loop() {
		r.Read(buf)
	}
}

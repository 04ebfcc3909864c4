package check_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/check"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// memory is a blob in memory, with any descriptor. Reads from failFrom on fail.
type memory struct {
	data     []byte
	desc     ocispec.Descriptor
	failFrom int64 // -1: never
}

var errGone = errors.New("gone on purpose")

func newMemory(data []byte, d digest.Digest) memory {
	return memory{data, ocispec.Descriptor{Digest: d, Size: int64(len(data))}, -1}
}

func (m memory) Size() int64                    { return int64(len(m.data)) }
func (m memory) Descriptor() ocispec.Descriptor { return m.desc }
func (m memory) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	if m.failFrom >= 0 && off+int64(len(p)) > m.failFrom {
		return 0, errGone
	}
	n := copy(p, m.data[min(off, m.Size()):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func image(layers ...blob.Blob) *source.Image {
	return &source.Image{Name: "test", Layers: layers}
}

func run(t *testing.T, img *source.Image) *check.Result {
	t.Helper()
	r, err := check.Image(t.Context(), img, check.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// kinds returns the kinds of the problems of layer n.
func kinds(r *check.Result, n int) []check.Kind {
	var all []check.Kind
	for _, p := range r.Layers[n].Problems {
		all = append(all, p.Kind)
	}
	return all
}

func TestIntactVectorsHaveNoProblems(t *testing.T) {
	files, _ := filepath.Glob(vectors + "small-chain3/L0.*")
	more, _ := filepath.Glob(vectors + "edge/*")
	checked := 0
	for _, f := range append(files, more...) {
		if !slices.Contains([]string{".tar", ".zfile", ".lsmt"}, filepath.Ext(f)) {
			continue
		}
		checked++
		b := readFile(t, strings.TrimPrefix(f, vectors))
		r := run(t, image(newMemory(b, digest.FromBytes(b))))
		if r.Errors != 0 || r.Warnings != 0 {
			t.Errorf("%s: %+v", f, r)
		}
		if l := r.Layers[0]; l.Digest != digest.FromBytes(b) || (l.Blocks == 0) != strings.HasSuffix(f, ".lsmt") {
			t.Errorf("%s: %+v", f, l)
		}
	}
	if checked < 15 {
		t.Errorf("only %d files checked", checked)
	}
}

// Where nothing but the digest of the whole blob protects the bytes, a file
// without a digest can be damaged and look whole.
var undetectable = []string{
	"lsmt-bitflip-data.lsmt",         // LSMT has no checksums
	"lz4-nocrc-bitflip-block5.zfile", // no block checksums
	"zstd-nocrc-bitflip-block5.zfile",
	"lsmt-index-tag7.lsmt", // not damage: tags and versions mean nothing
	"lsmt-version2.lsmt",
	"zfile-nodigest-flag.zfile",
	"zfile-reserved-nonzero-redigest.zfile",
	"tar-second-header-broken.tar",
	"tar-other-name.tar",
	"tar-plain-ustar.tar",
}

// These can be read right although something is wrong.
var warned = []string{
	"lsmt-index-beyond-vsize.lsmt",
	"zfile-trunc-trailer-overwritten.zfile",
	"zfile-header-form-trailing-junk.zfile",
}

func TestCorruptVectors(t *testing.T) {
	for _, v := range corrupt(t) {
		t.Run(v.File, func(t *testing.T) {
			b := v.bytes(t)
			r := run(t, image(newMemory(b, "")))
			switch {
			case slices.Contains(undetectable, v.File):
				if r.Errors != 0 {
					t.Errorf("%+v", r)
				}
			case slices.Contains(warned, v.File):
				if r.Errors != 0 || r.Warnings == 0 {
					t.Errorf("%+v", r)
				}
			case r.Errors == 0:
				t.Errorf("nothing found: %+v", r)
			}
			if v.Base == "" {
				return
			}
			// With the digest of the intact file nothing gets through.
			r = run(t, image(newMemory(b, v.intact(t))))
			want := digest.FromBytes(b) != v.intact(t)
			if got := slices.Contains(kinds(r, 0), check.Digest); got != want {
				t.Errorf("digest problem %v, want %v: %+v", got, want, r)
			}
		})
	}
}

func TestDamagedBlocksAreNamed(t *testing.T) {
	b := readFile(t, "small-chain3/L1.lz4-4k.tar")
	intact := digest.FromBytes(b)
	b[1536+512+100] ^= 1 // somewhere in block 0, 1 or 2
	b[20000] ^= 1
	r := run(t, image(newMemory(b, intact)))
	var blocks []int64
	for _, p := range r.Layers[0].Problems {
		if p.Kind == check.Block {
			blocks = append(blocks, *p.Place.Block)
			if at := int64(20000); len(blocks) == 2 && (at < p.Place.Offset || at >= p.Place.Offset+p.Place.Length) {
				t.Errorf("byte %d is not in %+v", at, p.Place)
			}
			if !strings.Contains(p.String(), "checksum is") {
				t.Errorf("problem reads %q", p)
			}
		}
	}
	if len(blocks) != 2 || !slices.IsSorted(blocks) {
		t.Errorf("damaged blocks %v, want two: %+v", blocks, r)
	}
}

func TestGarbageIsBounded(t *testing.T) {
	b := readFile(t, "small-chain3/L0.lz4-4k.tar")
	for i := 4096; i < len(b)-4096; i += 64 {
		b[i] ^= 0xff
	}
	r := run(t, image(newMemory(b, "")))
	if l := r.Layers[0]; len(l.Problems) != 100 || l.More == 0 || r.Errors < 100+l.More {
		t.Errorf("%d problems and %d more, %d errors", len(l.Problems), l.More, r.Errors)
	}
}

func TestGoesOnAfterAnUnreadableLayer(t *testing.T) {
	good := readFile(t, "small-chain3/L0.lz4-4k.tar")
	gone := newMemory(readFile(t, "small-chain3/L1.lz4-4k.tar"), digest.FromString("x"))
	gone.failFrom = 0
	bad := readFile(t, "small-chain3/L2.lz4-4k.tar")
	r := run(t, image(newMemory(good, digest.FromBytes(good)), gone, newMemory(bad, digest.FromString("other"))))
	if kinds(r, 0) != nil {
		t.Errorf("layer 0: %+v", r.Layers[0])
	}
	if k := kinds(r, 1); !slices.Contains(k, check.Structure) || !slices.Contains(k, check.Read) || r.Layers[1].Digest != "" {
		t.Errorf("layer 1: %+v", r.Layers[1])
	}
	if k := kinds(r, 2); !slices.Equal(k, []check.Kind{check.Digest}) {
		t.Errorf("layer 2: %+v", r.Layers[2])
	}
}

func TestDescriptorAndStack(t *testing.T) {
	b := readFile(t, "small-chain3/L0.lz4-4k.tar")
	m := newMemory(b, digest.FromBytes(b))
	m.desc.Annotations = map[string]string{
		labels.BlobDigest: digest.FromString("another").String(), labels.BlobSize: "7",
	}
	if k := kinds(run(t, image(m)), 0); !slices.Equal(k, []check.Kind{check.Descriptor, check.Descriptor}) {
		t.Errorf("found %v", k)
	}
	m.desc.Annotations = map[string]string{labels.BlobSize: "many"}
	if k := kinds(run(t, image(m)), 0); !slices.Equal(k, []check.Kind{check.Descriptor}) {
		t.Errorf("found %v", k)
	}
	img := image(newMemory(b, ""))
	img.Trace = newMemory([]byte("reads"), digest.FromString("writes"))
	if r := run(t, img); len(r.Layers) != 2 || !r.Layers[1].Trace || !slices.Equal(kinds(r, 1), []check.Kind{check.Trace, check.Digest}) {
		t.Errorf("%+v", r)
	}
}

func TestProgressCountsEveryByteOnce(t *testing.T) {
	b := readFile(t, "small-chain3/L0.lz4-4k.registry.tar")
	var n atomic.Int64
	_, err := check.Image(t.Context(), image(newMemory(b, "")), check.Config{Progress: func(k int64) { n.Add(k) }})
	if err != nil || n.Load() != int64(len(b)) {
		t.Errorf("%d of %d bytes, %v", n.Load(), len(b), err)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := readFile(t, "small-chain3/L0.lz4-4k.tar")
	if _, err := check.Image(ctx, image(newMemory(b, "")), check.Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestResultAsJSON(t *testing.T) {
	b := readFile(t, "small-chain3/L2.lz4-4k.zfile")
	b[700] ^= 1
	out, err := json.Marshal(run(t, image(newMemory(b, ""))))
	if err != nil || !strings.Contains(string(out), `"kind":"block","place":{"block":`) {
		t.Errorf("%s, %v", out, err)
	}
}

func TestGoldenImages(t *testing.T) {
	for _, name := range []string{"busybox-obd", "busybox-obd-zstd", "busybox-obd-trace"} {
		dir := filepath.Join("../../../../shared/golden/images", name)
		if _, err := os.Stat(dir); err != nil {
			t.Skip("no golden images")
		}
		img, err := source.Open(t.Context(), dir, source.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer img.Close()
		if r := run(t, img); r.Errors+r.Warnings != 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

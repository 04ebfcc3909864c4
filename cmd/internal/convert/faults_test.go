package convert_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/convert"
	"github.com/reprise-containers/reprise/cmd/internal/source"
)

// bomb returns a compressed tar archive with a file of n bytes of zeros.
func bomb(compress func([]byte) []byte, n int) []byte {
	head := archive(map[string]int{"zeros": 0})[:512]
	// The size field of the header, and its checksum anew.
	copy(head[124:], fmt.Sprintf("%011o\x00", n))
	copy(head[148:], "        ")
	sum := 0
	for _, c := range head {
		sum += int(c)
	}
	copy(head[148:], fmt.Sprintf("%06o\x00 ", sum))
	out := compress(head)
	// Both formats may be strung together.
	const piece = 16 << 20
	zeros := compress(make([]byte, piece))
	for ; n > 0; n -= piece {
		out = append(out, zeros...)
	}
	return append(out, compress(make([]byte, 1024))...)
}

func TestBadLayers(t *testing.T) {
	good := three()
	with := func(change func(*layer)) []layer {
		l := three()
		change(&l[1])
		return l
	}
	cut := func(n int) func(*layer) {
		return func(l *layer) { l.blob = l.blob[:len(l.blob)-n] }
	}
	for _, c := range []struct {
		name   string
		layers []layer
		limits convert.Limits
		part   string
	}{
		{"truncated zstd", with(cut(200)), convert.Limits{}, "decompressing zstd: unexpected EOF"},
		{"truncated gzip", with(func(l *layer) { l.blob = gzipped(l.tar); cut(200)(l) }), convert.Limits{}, "decompressing gzip: unexpected EOF"},
		{"gzip cut in its trailer", with(func(l *layer) { l.blob = gzipped(l.tar); cut(3)(l) }), convert.Limits{}, "decompressing gzip: unexpected EOF"},
		{"damaged gzip", with(func(l *layer) { l.blob = gzipped(l.tar); l.blob[len(l.blob)-6] ^= 1 }), convert.Limits{}, "decompressing gzip: gzip: invalid checksum"},
		{"something after the gzip stream", with(func(l *layer) { l.blob = append(gzipped(l.tar), "rest"...) }), convert.Limits{}, "decompressing gzip"},
		{"wrong diff ID", with(func(l *layer) { l.id = digest.FromString("other") }), convert.Limits{}, "the config says " + digest.FromString("other").String()},
		{"no tar", with(func(l *layer) { l.blob = bytes.Repeat([]byte("no tar"), 1000); l.id = digest.FromBytes(l.blob) }), convert.Limits{}, "reading the archive"},
		{"tar cut in an entry", with(func(l *layer) { l.tar = l.tar[:1000]; l.blob = gzipped(l.tar) }), convert.Limits{}, "unexpected EOF"},
		{"too large", good, convert.Limits{LayerSize: 100_000}, "raise --max-layer-size"},
		{"gzip bomb", with(func(l *layer) { l.blob = bomb(gzipped, 128<<20) }), convert.Limits{RatioFrom: 64 << 20}, "more than 1000 times as much"},
		{"zstd bomb", with(func(l *layer) { l.blob = bomb(zstded, 128<<20) }), convert.Limits{RatioFrom: 64 << 20}, "raise --max-ratio"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(t)
			cfg.Limits, cfg.VirtualSize = c.limits, 16<<30
			to := t.TempDir()
			_, err := run(t, cfg, single(t, c.layers...), to)
			number := "layer 1 ("
			if c.limits.LayerSize > 0 {
				number = "layer 0 ("
			}
			if err == nil || !strings.Contains(err.Error(), c.part) || !strings.Contains(err.Error(), number) {
				t.Errorf("%v, want %q of %s", err, c.part, number)
			}
			// What was finished may stay, without a name.
			if names := entries(t, to); len(names) > 1 || len(names) == 1 && names[0] != "blobs" {
				t.Errorf("left %q", names)
			}
		})
	}
}

// A blob that is not what its descriptor says, in a layout that was damaged.
func TestDamagedLayout(t *testing.T) {
	from := single(t, three()...)
	c := content(t, from, source.Config{})
	var m ocispec.Manifest
	document(t, c, c.Root, &m)
	path := filepath.Join(strings.TrimSuffix(from, ":1"), "blobs/sha256", m.Layers[2].Digest.Encoded())
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[1500] ^= 1 // in the content of a file
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, config(t), from, t.TempDir()); err == nil || !strings.Contains(err.Error(), "layer 2 (") || !strings.Contains(err.Error(), "digest") {
		t.Errorf("damaged: %v", err)
	}
	if err := os.WriteFile(path, data[:2000], 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, config(t), from, t.TempDir()); err == nil || !strings.Contains(err.Error(), "has 2000 bytes where the manifest says") {
		t.Errorf("truncated: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, config(t), from, t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
}

func TestBadManifests(t *testing.T) {
	b := newBuilder(t)
	layers := three()
	few := b.image(amd64, layers...)
	var m ocispec.Manifest
	b.tag(map[string]ocispec.Descriptor{"1": few})
	c := content(t, b.dir, source.Config{})
	document(t, c, c.Root, &m)
	m.Layers = m.Layers[:2]
	few = b.json(ocispec.MediaTypeImageManifest, m)
	m.Layers = nil
	none := b.json(ocispec.MediaTypeImageManifest, m)
	schema1 := b.blob("application/vnd.docker.distribution.manifest.v1+prettyjws", []byte(`{"schemaVersion":1,"mediaType":"application/vnd.docker.distribution.manifest.v1+prettyjws"}`))
	deep := b.image(amd64, layers...)
	for range 7 {
		deep = b.index(deep)
	}
	b.tag(map[string]ocispec.Descriptor{"few": few, "none": none, "schema1": schema1, "deep": deep, "artifact": b.artifact(),
		"windows": b.image(windows, layers...), "gone": {MediaType: few.MediaType, Digest: digest.FromString("gone"), Size: 1}})
	for tag, part := range map[string]string{
		"few": "3 diff IDs for 2 layers", "none": "3 diff IDs for 0 layers", "schema1": "not supported", "deep": "deep",
		"artifact": "not a container image", "windows": "only those for linux", "gone": "no such file",
	} {
		if _, err := run(t, config(t), b.dir+":"+tag, t.TempDir()); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v, want %q", tag, err, part)
		}
	}
}

// smallDisk mounts a file system of size bytes, and skips the test if it may not.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("mounting a small disk: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestFullDisk(t *testing.T) {
	large := append(three(), gzipLayer(archive(map[string]int{"large": 8 << 20})))
	from := single(t, large...)
	cfg := config(t)
	cfg.TempDir = smallDisk(t, "2m")
	to := t.TempDir()
	if _, err := run(t, cfg, from, to); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("temporary files on a full disk: %v", err)
	}
	if left := entries(t, cfg.TempDir); len(left) > 0 {
		t.Errorf("left %q", left)
	}
	for _, name := range []string{"/layout", "/archive.tar"} {
		disk := smallDisk(t, "2m")
		if _, err := run(t, config(t), from, disk+name); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("destination %s on a full disk: %v", name, err)
		}
		if name != "/layout" {
			if left := entries(t, disk); len(left) > 0 {
				t.Errorf("left %q", left)
			}
		} else if left := entries(t, disk+name); !slices.Equal(left, []string{"blobs"}) {
			t.Errorf("left %q", left)
		}
	}
}

// What was finished before an interruption is not done again after it.
func TestInterrupted(t *testing.T) {
	from, to := single(t, three()...), t.TempDir()
	cfg := config(t)
	cfg.Cache = convert.OpenCache(t.TempDir() + "/cache")
	cfg.Concurrency = 1
	ctx, cancel := context.WithCancel(t.Context())
	cfg.Stored = func(l *convert.Layer) {
		if l.Source == digest.FromBytes(three()[1].blob) {
			cancel()
		}
	}
	if _, err := runContext(ctx, t, cfg, from, to); !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
	if left := entries(t, to); !slices.Equal(left, []string{"blobs"}) {
		t.Errorf("left %q", left)
	}
	cfg.Stored = nil
	r := mustRun(t, cfg, from, to)
	if _, converted, _ := r.Totals(); converted != 1 || !r.Images[0].Layers[1].Reused {
		t.Errorf("%d layers were converted after two were finished", converted)
	}
	if fresh := mustRun(t, config(t), from, t.TempDir()); fresh.Digest != r.Digest {
		t.Errorf("resumed: %s, at once: %s", r.Digest, fresh.Digest)
	}
	opens(t, to, 3)
}

package convert_test

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/cmd/internal/convert"
	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// config returns a configuration with an empty temporary directory, which the
// test checks to be empty again.
func config(t *testing.T) convert.Config {
	cfg := convert.Config{TempDir: t.TempDir(), VirtualSize: 1 << 30}
	t.Cleanup(func() {
		if left, err := os.ReadDir(cfg.TempDir); err != nil || len(left) > 0 {
			t.Errorf("temporary files are left: %v, %v", left, err)
		}
	})
	return cfg
}

// run converts from one argument to another, registries apart.
func run(t *testing.T, cfg convert.Config, from, to string) (*convert.Report, error) {
	t.Helper()
	return runContext(t.Context(), t, cfg, from, to)
}

func runContext(ctx context.Context, t *testing.T, cfg convert.Config, from, to string) (*convert.Report, error) {
	t.Helper()
	cfg.Source = content(t, from, source.Config{})
	l, err := destination.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	switch l.Kind {
	case source.KindArchive:
		cfg.Destination, err = destination.NewArchive(l.Path, l.Tag, false)
	case source.KindLayout:
		cfg.Destination, err = destination.NewLayout(l.Path, l.Tag)
	default:
		t.Fatalf("%s is not local", to)
	}
	if err != nil {
		return nil, err
	}
	r, err := convert.Run(ctx, cfg)
	if e := cfg.Destination.Close(); e != nil {
		t.Error(e)
	}
	return r, err
}

func content(t *testing.T, arg string, cfg source.Config) *source.Content {
	t.Helper()
	c, err := source.OpenContent(t.Context(), arg, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func mustRun(t *testing.T, cfg convert.Config, from, to string) *convert.Report {
	t.Helper()
	r, err := run(t, cfg, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// document reads a document of an image into v.
func document(t *testing.T, c *source.Content, desc ocispec.Descriptor, v any) {
	t.Helper()
	text, err := c.Read(t.Context(), desc)
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// opens fails the test unless an image opens as an overlaybd image of so many
// layers.
func opens(t *testing.T, arg string, layers int) {
	t.Helper()
	img, err := source.Open(t.Context(), arg, source.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	var readers []blob.ReaderAt
	for _, l := range img.Layers {
		readers = append(readers, l)
	}
	if _, err := backstore.Open(t.Context(), readers); err != nil {
		t.Error(err)
	}
	if len(img.Layers) != layers || img.FSType != "erofs" {
		t.Errorf("%d layers of %q, want %d", len(img.Layers), img.FSType, layers)
	}
}

func TestConvert(t *testing.T) {
	for _, docker := range []bool{false, true} {
		b := newBuilder(t)
		b.docker = docker
		layers := three()
		b.tag(map[string]ocispec.Descriptor{"1": b.image(amd64, layers...)})
		to := t.TempDir() + "/new:2"
		r := mustRun(t, config(t), b.dir, to)
		opens(t, to, 3)

		c := content(t, to, source.Config{})
		if c.Root.Digest != r.Digest || r.Tagged != r.Digest || c.Root.MediaType != ocispec.MediaTypeImageManifest {
			t.Errorf("tagged %+v, report %+v", c.Root, r)
		}
		var m ocispec.Manifest
		document(t, c, c.Root, &m)
		if m.Config.MediaType != ocispec.MediaTypeImageConfig || m.Annotations["org.example.title"] != "<test & more>" || m.Subject != nil {
			t.Errorf("manifest %+v", m)
		}
		var ids, converted []digest.Digest
		for i, d := range m.Layers {
			ids, converted = append(ids, digest.FromBytes(layers[i].tar)), append(converted, d.Digest)
			l, err := labels.Parse(d.Annotations)
			if err != nil || l.Blob != d.Digest || l.BlobSize != d.Size || l.FSType != "erofs" || d.MediaType != ocispec.MediaTypeImageLayer {
				t.Errorf("layer %d: %+v, %v", i, d, err)
			}
			if got := d.Annotations[labels.SourceChain]; got != identity.ChainID(ids).String() || d.Annotations[labels.Version] != "0.1.0" {
				t.Errorf("layer %d: %+v", i, d.Annotations)
			}
		}
		var config map[string]any
		document(t, c, m.Config, &config)
		text, _ := c.Read(t.Context(), m.Config)
		for _, part := range []string{`"created":"2024-01-02T03:04:05.678Z"`, `"/bin/sh <&>"`, `"x-number":12345678901234567890`,
			`"history":[{"created_by":"one"},{"created_by":"two","empty_layer":true}]`} {
			if !strings.Contains(string(text), part) {
				t.Errorf("config %s, without %s", text, part)
			}
		}
		var image ocispec.Image
		document(t, c, m.Config, &image)
		if !slices.Equal(image.RootFS.DiffIDs, converted) || image.RootFS.Type != "layers" {
			t.Errorf("diff IDs %q, want %q", image.RootFS.DiffIDs, converted)
		}
	}
}

// One input, one digest: whatever the workers, the order in which layers are
// finished, the form and compression of the source, and what was reused.
func TestReproducible(t *testing.T) {
	layers := three()
	other := slices.Clone(layers)
	for i := range other {
		other[i] = gzipLayer(layers[i].tar)
	}
	from, to := single(t, layers...), t.TempDir()
	want := mustRun(t, config(t), from, to+"/want").Digest
	for name, change := range map[string]func(*convert.Config){
		"one worker":     func(c *convert.Config) { c.Workers, c.Concurrency = 1, 1 },
		"many workers":   func(c *convert.Config) { c.Workers, c.Concurrency = 8, 8 },
		"the defaults":   func(c *convert.Config) { c.Compression = zfile.Options{Algorithm: zfile.ZSTD, BlockSize: 4096} },
		"an empty cache": func(c *convert.Config) { c.Cache = convert.OpenCache(t.TempDir()) },
		"known layers":   func(c *convert.Config) { c.Known = []*source.Content{content(t, to+"/want", source.Config{})} },
	} {
		cfg := config(t)
		change(&cfg)
		if got := mustRun(t, cfg, from, t.TempDir()).Digest; got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	synctest.Test(t, func(t *testing.T) { // another day: January 2000
		if got := mustRun(t, config(t), from, t.TempDir()).Digest; got != want {
			t.Errorf("on %s: %s, want %s", time.Now(), got, want)
		}
	})
	// The same content, compressed otherwise.
	if got := mustRun(t, config(t), single(t, other...), t.TempDir()).Digest; got != want {
		t.Errorf("another compression of the source: %s, want %s", got, want)
	}
	for name, change := range map[string]func(*convert.Config){
		"lz4":          func(c *convert.Config) { c.Compression.Algorithm = zfile.LZ4 },
		"16k blocks":   func(c *convert.Config) { c.Compression.BlockSize = 16384 },
		"another size": func(c *convert.Config) { c.VirtualSize = 2 << 30 },
	} {
		cfg := config(t)
		change(&cfg)
		cfg.Known = []*source.Content{content(t, to+"/want", source.Config{})}
		r := mustRun(t, cfg, from, t.TempDir())
		if _, converted, _ := r.Totals(); r.Digest == want || converted != 3 {
			t.Errorf("%s: %d layers were converted, digest %s", name, converted, r.Digest)
		}
	}
}

func TestArchive(t *testing.T) {
	from, dir := single(t, three()...), t.TempDir()
	first := mustRun(t, config(t), from, dir+"/one.tar:x")
	mustRun(t, config(t), from, dir+"/two.tar:x")
	opens(t, dir+"/one.tar:x", 3)
	one, err := os.ReadFile(dir + "/one.tar")
	if err != nil {
		t.Fatal(err)
	}
	if two, err := os.ReadFile(dir + "/two.tar"); err != nil || string(one) != string(two) {
		t.Errorf("two archives of one image differ, %v", err)
	}
	if _, err := run(t, config(t), from, dir+"/one.tar:x"); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("an existing archive is replaced: %v", err)
	}
	// An archive is a source as well; this one needs no converting.
	cfg := config(t)
	var notes []string
	cfg.Note = func(s string) { notes = append(notes, s) }
	r := mustRun(t, cfg, "oci-archive:"+dir+"/one.tar", dir+"/layout:1")
	if r.Digest != first.Digest || !r.Images[0].Copied || len(notes) != 1 || !strings.Contains(notes[0], "copied as it is") {
		t.Errorf("%+v, %q", r, notes)
	}
	opens(t, dir+"/layout:1", 3)
	if names := entries(t, dir); !slices.Equal(names, []string{"layout", "one.tar", "two.tar"}) {
		t.Errorf("left %q", names)
	}
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// An existing layout keeps its other images.
func TestLayoutKeepsImages(t *testing.T) {
	b := newBuilder(t)
	b.tag(map[string]ocispec.Descriptor{"1": b.image(amd64, three()...), "2": b.image(amd64, three()[:1]...)})
	mustRun(t, config(t), b.dir+":2", b.dir+":2-obd")
	mustRun(t, config(t), b.dir+":1", b.dir+":2-obd")
	opens(t, b.dir+":2-obd", 3)
	for _, tag := range []string{":1", ":2"} {
		if c := content(t, b.dir+tag, source.Config{}); c.Root.Annotations[ocispec.AnnotationRefName] != tag[1:] {
			t.Errorf("%s is %+v", tag, c.Root)
		}
	}
}

package source_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
)

// openContent opens arg and closes it at the end of the test.
func openContent(t *testing.T, arg string, cfg source.Config) (*source.Content, error) {
	t.Helper()
	c, err := source.OpenContent(t.Context(), arg, cfg)
	if err == nil {
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return c, err
}

func TestContent(t *testing.T) {
	l := newLayout(t)
	one := l.image("one", l.layer("bottom"), l.layer("top"))
	two := l.image("two", l.layer("other"))
	dir, archive := l.path(), l.archive()
	r := newLayout(t)
	inRegistry := r.image("example.com/app:1", r.layer("remote"))
	cfg := source.Config{Registry: layoutRegistry{r}}
	for arg, want := range map[string]struct {
		kind source.Kind
		root ocispec.Descriptor
	}{
		dir + ":one":                      {source.KindLayout, one},
		"oci:" + dir + ":two":             {source.KindLayout, two},
		dir + "@" + two.Digest.String():   {source.KindLayout, two},
		archive + ":one":                  {source.KindArchive, one},
		"oci-archive:" + archive + ":two": {source.KindArchive, two},
		"example.com/app:1":               {source.KindRegistry, inRegistry},
		"docker://example.com/app:1":      {source.KindRegistry, inRegistry},
	} {
		c, err := openContent(t, arg, cfg)
		if err != nil || c.Kind != want.kind || c.Root.Digest != want.root.Digest {
			t.Errorf("%s is %+v, %v", arg, c, err)
			continue
		}
		if text, err := c.Read(t.Context(), c.Root); err != nil || !strings.Contains(string(text), `"layers"`) {
			t.Errorf("%s: %s, %v", arg, text, err)
		}
		b, err := c.Open(l.layer("bottom"))
		if c.Kind != source.KindRegistry && (err != nil || b.Size() != 6) {
			t.Errorf("%s: %v", arg, err)
		}
	}
	for arg, part := range map[string]string{
		"":                     "no image given",
		"oci:":                 "no image given",
		dir:                    "append one of :one, :two",
		dir + ":three":         `no image "three"`,
		"oci:" + dir + "/none": "is no image",
		"oci:" + archive:       "is no image",
		"oci-archive:" + dir:   "not a regular file",
		"oci-archive:" + filepath.Join(dir, "index.json"): "not an OCI archive",
		"docker://" + dir:   "parsing reference",
		"./none":            "no such file",
		"example.com/app:2": "not exist",
		"Not/A Reference":   "neither a registry reference",
		t.TempDir():         "not an OCI layout",
	} {
		_, err := openContent(t, arg, cfg)
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %v, want %q", arg, err, part)
		}
		// Open says the same, but that it lists the names there are.
		if _, same := open(t, arg, cfg); same == nil || arg != dir+":three" && same.Error() != err.Error() {
			t.Errorf("%q: %v, but Open says %v", arg, err, same)
		}
	}
	for _, arg := range []string{dir + ":three", "./none", "oci:./none", "oci-archive:none.tar"} {
		if _, err := openContent(t, arg, cfg); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q does not say that there is nothing: %v", arg, err)
		}
	}
	// Open understands the prefixes, too.
	img, err := open(t, "oci:"+dir+":one", cfg)
	want(t, img, err, source.KindLayout, "bottom", "top")
	img, err = open(t, "docker://example.com/app:1", cfg)
	want(t, img, err, source.KindRegistry, "remote")
	if _, err = open(t, "oci:example.com/app:1", cfg); err == nil {
		t.Error("a reference passes for a layout")
	}
}

// What refers to an image is not one more image.
func TestContentBesideReferrers(t *testing.T) {
	l := newLayout(t)
	d := l.image("", l.layer("bottom"))
	referrer := l.image("", l.layer("table"))
	referrer.ArtifactType = "type/x"
	l.index.Manifests = append(l.index.Manifests, referrer, d)
	c, err := openContent(t, l.path(), source.Config{})
	if err != nil || c.Root.Digest != d.Digest {
		t.Errorf("%+v, %v", c, err)
	}
	img, err := open(t, l.dir, source.Config{})
	want(t, img, err, source.KindLayout, "bottom")
}

func TestContentInParallel(t *testing.T) {
	l := newLayout(t)
	d := l.layer("bottom")
	l.image("one", d)
	c, err := openContent(t, l.path(), source.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			b, err := c.Open(d)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := b.ReadAt(t.Context(), make([]byte, 6), 0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	before := openFiles(t)
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	if after := openFiles(t); after > before-10 {
		t.Errorf("%d open files, %d before Close", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

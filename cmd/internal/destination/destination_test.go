package destination_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
)

func TestParse(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"dir", "dir.tar", "with:colon", "example.com/app"} {
		if err := os.MkdirAll(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile("file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string]string{
		"redis":                      "registry docker.io/library/redis:latest",
		"redis:7":                    "registry docker.io/library/redis:7",
		"localhost:5000/a/b":         "registry localhost:5000/a/b:latest",
		"localhost:5000/a/b:c":       "registry localhost:5000/a/b:c",
		"docker://dir:1":             "registry docker.io/library/dir:1",
		"docker://x.tar":             "registry docker.io/library/x.tar:latest",
		"dir":                        "layout dir:latest",
		"dir:1":                      "layout dir:1",
		"dir.tar:1":                  "layout dir.tar:1",
		"example.com/app:1":          "layout example.com/app:1",
		"docker://example.com/app:1": "registry example.com/app:1",
		"with:colon":                 "layout with:colon:latest",
		"./new":                      "layout ./new:latest",
		"/new/dir:tag":               "layout /new/dir:tag",
		"oci:new:tag":                "layout new:tag",
		"oci:new":                    "layout new:latest",
		"file":                       "archive file:latest",
		"x.tar":                      "archive x.tar:latest",
		"./x.tar:1":                  "archive ./x.tar:1",
		"oci-archive:x:1":            "archive x:1",
		"":                           "no destination",
		"oci:":                       "no destination",
		"docker://":                  "no destination",
		"Upper/Case":                 "parsing the destination",
		"redis@sha256:" + digest.FromString("x").Encoded():   "not a digest",
		"oci:dir@sha256:" + digest.FromString("x").Encoded(): "not a digest",
	} {
		l, err := destination.Parse(arg)
		got := fmt.Sprintf("%s %s", l.Kind, l)
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%q is %q, want %q", arg, got, want)
		}
		if err == nil {
			if again, err := destination.Parse(l.Argument()); err != nil || again != l {
				t.Errorf("%q is %+v, its argument %q is %+v, %v", arg, l, l.Argument(), again, err)
			}
		}
	}
}

func describe(mediaType, text string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(text), Size: int64(len(text))}
}

func layout(t *testing.T, dir, tag string) *destination.Layout {
	t.Helper()
	l, err := destination.NewLayout(dir, tag)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestLayout(t *testing.T) {
	dir, ctx := t.TempDir()+"/new", t.Context()
	l := layout(t, dir, "1")
	blob := describe("application/x", "content")
	if there, err := l.Exists(ctx, blob); err != nil || there {
		t.Errorf("%v, %v", there, err)
	}
	for range 2 {
		if err := l.Put(ctx, blob, strings.NewReader("content")); err != nil {
			t.Fatal(err)
		}
	}
	if there, err := l.Exists(ctx, blob); err != nil || !there {
		t.Errorf("%v, %v", there, err)
	}
	b, err := l.Open(blob)
	if err != nil {
		t.Fatal(err)
	}
	if got := make([]byte, 7); b.Size() != 7 {
		t.Error(b.Size())
	} else if _, err := b.ReadAt(ctx, got, 0); err != nil || string(got) != "content" {
		t.Errorf("%q, %v", got, err)
	}
	// Not yet a layout: nothing has a name.
	if _, err := os.Stat(filepath.Join(dir, "index.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an index without a tag: %v", err)
	}
	for _, c := range []struct{ said, is string }{{"longer content", "short"}, {"abcde", "fghij"}, {"short", "longer content"}} {
		if err := l.Put(ctx, describe("application/x", c.said), strings.NewReader(c.is)); err == nil {
			t.Errorf("%q was stored as %q", c.is, c.said)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := l.Put(cancelled, describe("application/x", "more"), strings.NewReader("more")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*/*/*"))
	hidden, _ := filepath.Glob(filepath.Join(dir, "*/*/.*"))
	if err != nil || len(files) != 1 || len(hidden) != 0 {
		t.Errorf("files %q %q, want the one blob", files, hidden)
	}
}

// What refers to something is listed as a registry lists it, without a name.
func TestLayoutReferrer(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	l := layout(t, dir, "1")
	if err := l.Tag(ctx, describe(ocispec.MediaTypeImageManifest, "{}"), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"config":{"mediaType":"type/config"},"subject":{"digest":%q},`+
		`"annotations":{"a":"b","org.opencontainers.image.ref.name":"1","io.containerd.image.name":"x:1"}}`, digest.FromString("{}"))
	desc := describe(ocispec.MediaTypeImageManifest, text)
	if err := l.Put(ctx, desc, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	data, err := os.ReadFile(dir + "/index.json")
	if err == nil {
		err = json.Unmarshal(data, &index)
	}
	if err != nil || len(index.Manifests) != 2 {
		t.Fatalf("%s, %v", data, err)
	}
	want := desc
	want.ArtifactType, want.Annotations = "type/config", map[string]string{"a": "b"}
	if !reflect.DeepEqual(index.Manifests[1], want) {
		t.Errorf("referrer %+v, want %+v", index.Manifests[1], want)
	}
}

// Many may tag at the same time; a referrer is listed without a name.
func TestLayoutIndex(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	manifest := func(n int) string { return fmt.Sprintf(`{"schemaVersion":2,"layers":[],"annotations":{"n":"%d"}}`, n) }
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			l := layout(t, dir, fmt.Sprint(i%5))
			if err := l.Tag(ctx, describe(ocispec.MediaTypeImageManifest, manifest(i)), []byte(manifest(i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	text := fmt.Sprintf(`{"artifactType":"type/a","subject":{"digest":%q}}`, digest.FromString(manifest(0)))
	for range 2 {
		if err := layout(t, dir, "").Put(ctx, describe(ocispec.MediaTypeImageManifest, text), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	var index ocispec.Index
	data, err := os.ReadFile(dir + "/index.json")
	if err == nil {
		err = json.Unmarshal(data, &index)
	}
	if err != nil || len(index.Manifests) != 6 || index.SchemaVersion != 2 {
		t.Fatalf("%s, %v", data, err)
	}
	if last := index.Manifests[5]; last.ArtifactType != "type/a" || len(last.Annotations) != 0 {
		t.Errorf("referrer %+v", last)
	}
	c, err := source.OpenContent(ctx, dir+":3", source.Config{})
	if err != nil || c.Root.Digest != digest.FromString(manifest(3)) && c.Root.Digest != digest.FromString(manifest(8)) {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestLayoutRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/important", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := destination.NewLayout(dir, "1"); err == nil || !strings.Contains(err.Error(), "something else than an OCI layout") {
		t.Errorf("%v", err)
	}
	if _, err := destination.NewLayout(dir+"/important", "1"); err == nil {
		t.Error("a file is a layout")
	}
	// What an interrupted conversion left can be used on.
	rest := t.TempDir()
	if err := os.MkdirAll(rest+"/blobs/sha256", 0o755); err != nil {
		t.Fatal(err)
	}
	layout(t, rest, "1")
	broken := t.TempDir()
	for _, name := range []string{"oci-layout", "index.json"} {
		if err := os.WriteFile(filepath.Join(broken, name), []byte("{"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	err := layout(t, broken, "1").Tag(t.Context(), describe(ocispec.MediaTypeImageManifest, "{}"), []byte("{}"))
	if text, _ := os.ReadFile(broken + "/index.json"); err == nil || string(text) != "{" {
		t.Errorf("a broken index became %s, %v", text, err)
	}
}

func TestArchive(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	file := dir + "/image.tar"
	a, err := destination.NewArchive(file, "1", false)
	if err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("large", 100_000)
	if err := a.Put(ctx, describe("application/x", large), bytes.NewReader([]byte(large))); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the archive is there before it is complete: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	root := describe(ocispec.MediaTypeImageManifest, "{}")
	if err := a.Tag(cancelled, root, []byte("{}")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := a.Tag(ctx, root, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	c, err := source.OpenContent(ctx, file+":1", source.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := c.Open(describe("", large))
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(large))
	if _, err := b.ReadAt(ctx, got, 0); err != nil && err != io.EOF || string(got) != large {
		t.Errorf("%v", err)
	}
	if _, err := destination.NewArchive(file, "1", false); err == nil {
		t.Error("an existing archive is replaced without being asked")
	}
	if _, err := destination.NewArchive(dir+"/none/x.tar", "1", true); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
	again, err := destination.NewArchive(file, "1", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the old archive is gone although the new one was given up: %v", err)
	}
}

// The archive is where its name pointed when it was opened, however that was
// written.
func TestArchiveRelative(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	if err := os.Mkdir(dir+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"x.tar", "./y.tar", "sub/../z.tar", "sub/app", dir + "//sub/.//w.tar"} {
		t.Chdir(dir)
		a, err := destination.NewArchive(name, "1", false)
		if err != nil {
			t.Fatal(err)
		}
		t.Chdir(t.TempDir())
		if err := a.Tag(ctx, describe(ocispec.MediaTypeImageManifest, "{}"), []byte("{}")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		t.Chdir(dir)
		c, err := source.OpenContent(ctx, "oci-archive:"+name+":1", source.Config{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c.Close()
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 4 {
		t.Errorf("%v, %v", list, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a:1", "oci:x:1", "docker://a/b@sha256:1", "./x.tar:y", "oci-archive:x@y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		l, err := destination.Parse(arg)
		if err != nil {
			return
		}
		if l.Kind == source.KindRegistry && l.Ref == "" || l.Kind != source.KindRegistry && (l.Tag == "" || l.Path == "") {
			t.Errorf("%q is %+v", arg, l)
		}
	})
}

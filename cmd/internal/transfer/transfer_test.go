package transfer_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/transfer"
)

// layout is an OCI layout to copy from.
type layout struct {
	t   *testing.T
	dir string
}

func (l layout) file(name string, data []byte) {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
		l.t.Fatal(err)
	}
}

func (l layout) blob(mediaType string, data []byte) ocispec.Descriptor {
	l.t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	l.file("blobs/sha256/"+d.Digest.Encoded(), data)
	return d
}

func (l layout) json(mediaType string, v any) ocispec.Descriptor {
	l.t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.blob(mediaType, text)
}

// open tags d and opens it.
func (l layout) open(d ocispec.Descriptor) *source.Content {
	l.t.Helper()
	l.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	text, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{d}})
	if err != nil {
		l.t.Fatal(err)
	}
	l.file("index.json", text)
	c, err := source.OpenContent(l.t.Context(), l.dir, source.Config{})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c
}

// mounter is a layout that has some blobs of other repositories.
type mounter struct {
	*destination.Layout
	has map[string][]digest.Digest
	err error
}

func (m mounter) Repository() string { return "there" }

func (m mounter) Mount(_ context.Context, d ocispec.Descriptor, from string) (bool, error) {
	if m.err != nil {
		return false, m.err
	}
	return slices.Contains(m.has[from], d.Digest), nil
}

func to(t *testing.T) *destination.Layout {
	t.Helper()
	l, err := destination.NewLayout(t.TempDir(), "1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// A blob comes the cheapest way there is, and the way it came is told.
func TestCopy(t *testing.T) {
	l := layout{t, t.TempDir()}
	d := l.blob(ocispec.MediaTypeImageLayer, []byte("content"))
	from := l.open(l.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{}))
	there := to(t)
	if err := there.Put(t.Context(), d, strings.NewReader("content")); err != nil {
		t.Fatal(err)
	}
	// What a registry calls the image decides where blobs are mounted from.
	named := &source.Content{Name: "example.com/app:1", Kind: source.KindRegistry}
	other := &source.Content{Name: "example.com/other@" + d.Digest.String(), Kind: source.KindRegistry}
	for name, c := range map[string]struct {
		to    destination.Store
		want  transfer.Stored
		notes int
	}{
		"there":          {there, transfer.Present, 0},
		"no other way":   {to(t), transfer.Copied, 0},
		"mounted":        {mounter{to(t), map[string][]digest.Digest{"example.com/other": {d.Digest}}, nil}, transfer.Mounted, 0},
		"nobody has it":  {mounter{to(t), nil, nil}, transfer.Copied, 0},
		"mounting fails": {mounter{to(t), nil, errors.New("no")}, transfer.Copied, 2},
	} {
		dir, notes := t.TempDir(), 0
		tr := transfer.Transfer{To: c.to, From: []*source.Content{named, from, other, named}, Dir: dir, Note: func(string) { notes++ }}
		if got, err := tr.Copy(t.Context(), from, d, nil); err != nil || got != c.want || notes != c.notes {
			t.Errorf("%s: %q with %d notes, %v", name, got, notes, err)
		}
		if there, err := c.to.Exists(t.Context(), d); err != nil || there != (c.want != transfer.Mounted) {
			t.Errorf("%s: it is there: %v, %v", name, there, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
	l.file("blobs/sha256/"+d.Digest.Encoded(), []byte("CONTENT"))
	tr := transfer.Transfer{To: to(t), Dir: t.TempDir()}
	if got, err := tr.Copy(t.Context(), from, d, nil); err == nil || !strings.Contains(err.Error(), "its descriptor says") {
		t.Errorf("other bytes: %q, %v", got, err)
	}
}

// A tree is copied with all that it refers to and may be copied.
func TestTree(t *testing.T) {
	l := layout{t, t.TempDir()}
	one := l.blob(ocispec.MediaTypeImageLayer, []byte("one"))
	foreign := l.blob("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", []byte("elsewhere"))
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: l.blob(ocispec.MediaTypeImageConfig, []byte("{}")), Layers: []ocispec.Descriptor{one, foreign},
	}
	manifest := l.json(ocispec.MediaTypeImageManifest, m)
	index := l.json(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{manifest},
	})
	store := to(t)
	tr := transfer.Transfer{To: store, Dir: t.TempDir(), Parallel: 2}
	from := l.open(index)
	if stored, err := tr.Tree(t.Context(), from, index); err != nil || len(stored) != 0 {
		t.Errorf("%q, %v", stored, err)
	}
	for _, d := range []ocispec.Descriptor{index, manifest, m.Config, one} {
		if there, err := store.Exists(t.Context(), d); !there || err != nil {
			t.Errorf("%s is not there, %v", d.MediaType, err)
		}
	}
	if there, _ := store.Exists(t.Context(), foreign); there {
		t.Error("a layer that may not be distributed was copied")
	}
	want := []transfer.Stored{transfer.Present, transfer.Present, ""}
	if stored, err := tr.Tree(t.Context(), from, manifest); err != nil || !slices.Equal(stored, want) {
		t.Errorf("again: %q, %v", stored, err)
	}
}

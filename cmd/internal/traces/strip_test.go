package traces_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/remote/registry/registrytest"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// builder writes an OCI layout.
type builder struct {
	t     *testing.T
	dir   string
	index ocispec.Index
}

func newBuilder(t *testing.T) *builder {
	b := &builder{t: t, dir: t.TempDir()}
	b.index.SchemaVersion = 2
	b.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return b
}

func (b *builder) file(name string, text []byte) {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, text, 0o644)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *builder) blob(mediaType string, data []byte) ocispec.Descriptor {
	b.t.Helper()
	d := digest.FromBytes(data)
	b.file("blobs/sha256/"+d.Encoded(), data)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (b *builder) json(mediaType string, v any) ocispec.Descriptor {
	b.t.Helper()
	text, err := json.MarshalIndent(v, "", "   ") // not as anything here would write it
	if err != nil {
		b.t.Fatal(err)
	}
	return b.blob(mediaType, text)
}

// layer stores a layer of an overlaybd image, or a trace layer.
func (b *builder) layer(data string, trace bool) ocispec.Descriptor {
	d := b.blob(ocispec.MediaTypeImageLayer, []byte(data))
	l := labels.TraceBlob{Blob: d.Digest, BlobSize: d.Size, FSType: "erofs"}
	d.Annotations = l.Annotations()
	if !trace {
		delete(d.Annotations, labels.Trace)
	}
	return d
}

// image stores an image for a platform.
func (b *builder) image(arch string, layers ...ocispec.Descriptor) ocispec.Descriptor {
	p := ocispec.Platform{OS: "linux", Architecture: arch}
	config := ocispec.Image{Platform: p, RootFS: ocispec.RootFS{Type: "layers"}}
	for _, d := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d.Digest)
		config.History = append(config.History, ocispec.History{CreatedBy: d.Digest.Encoded()[:8]})
	}
	d := b.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: b.json(ocispec.MediaTypeImageConfig, config), Layers: layers,
	})
	d.Platform = &p
	return d
}

func (b *builder) many(children ...ocispec.Descriptor) ocispec.Descriptor {
	return b.json(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: children,
	})
}

// tag names an image and returns it as an argument.
func (b *builder) tag(name string, d ocispec.Descriptor) string {
	b.t.Helper()
	d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	b.index.Manifests = append(b.index.Manifests, d)
	text, err := json.Marshal(b.index)
	if err != nil {
		b.t.Fatal(err)
	}
	b.file("index.json", text)
	return b.dir + ":" + name
}

// remote is a way to registries.
type remote struct {
	t      *testing.T
	client *registry.Client
	chain  *chain.Chain
}

func newRemote(t *testing.T) *remote {
	t.Helper()
	retry := blob.RetryConfig{Attempts: 3, Base: time.Millisecond, Max: time.Millisecond}
	client, err := registry.New(registry.Config{DockerConfig: t.TempDir() + "/none.json", Retry: retry})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return &remote{t, client, chain.New(client, chain.Config{Retry: retry})}
}

func (r *remote) open(arg string) *source.Content {
	r.t.Helper()
	c, err := source.OpenContent(r.t.Context(), arg, source.Config{Registry: r.chain})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// destination opens what arg names.
func (r *remote) destination(arg string) destination.Destination {
	r.t.Helper()
	l, err := destination.Parse(arg)
	if err != nil {
		r.t.Fatal(err)
	}
	var to destination.Destination
	switch l.Kind {
	case source.KindRegistry:
		to, err = destination.NewRegistry(r.client, r.chain, l.Ref)
	case source.KindArchive:
		to, err = destination.NewArchive(l.Path, l.Tag, false)
	default:
		to, err = destination.NewLayout(l.Path, l.Tag)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { to.Close() })
	return to
}

// strip strips an image and returns what was noted, too.
func (r *remote) strip(from, to string) (*traces.StripReport, []string, error) {
	r.t.Helper()
	var notes []string
	dir := r.t.TempDir()
	report, err := traces.Strip(r.t.Context(), traces.StripConfig{
		Source: r.open(from), Destination: r.destination(to), Dir: dir,
		Note: func(s string) { notes = append(notes, s) },
	})
	if left, e := os.ReadDir(dir); e != nil || len(left) > 0 {
		r.t.Errorf("left %v, %v", left, e)
	}
	return report, notes, err
}

// complete fails the test unless everything that an image refers to is there.
func complete(t *testing.T, c *source.Content, d ocispec.Descriptor) {
	t.Helper()
	n, err := c.Document(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range n.Children {
		complete(t, c, d)
	}
	for _, d := range n.Blobs() {
		b, err := c.Open(d)
		if err == nil {
			p := make([]byte, d.Size)
			if err = blob.ReadFull(t.Context(), b, p, 0); err == nil && digest.FromBytes(p) != d.Digest {
				err = errors.New("other bytes")
			}
		}
		if err != nil {
			t.Errorf("%s: %v", d.Digest, err)
		}
	}
}

func TestStrip(t *testing.T) {
	r, b := newRemote(t), newBuilder(t)
	one, two, trace := b.layer("one", false), b.layer("two", false), b.layer("reads", true)
	want := b.image("amd64", one, two)
	with := b.tag("with", b.image("amd64", one, two, trace))
	host := registrytest.Start(t, "")
	from := with
	for _, to := range []string{
		t.TempDir() + ":1", filepath.Join(t.TempDir(), "image.tar") + ":1", host + "/app:1",
	} {
		for pass := range 2 { // what was stripped stays as it is, and may be the destination
			if strings.Contains(to, ".tar") && pass == 1 {
				continue
			}
			report, notes, err := r.strip(from, to)
			if err != nil || report.Digest != want.Digest || len(notes) > 0 || len(report.Images) != 1 {
				t.Fatalf("to %s: %+v, %q, %v; want %s", to, report, notes, err, want.Digest)
			}
			if dropped := report.Images[0].Dropped; pass == 0 != slices.Equal(dropped, []digest.Digest{trace.Digest}) {
				t.Errorf("to %s: dropped %q", to, dropped)
			}
			c := r.open(to)
			if c.Root.Digest != want.Digest {
				t.Errorf("%s is %s", to, c.Root.Digest)
			}
			complete(t, c, c.Root)
			from = to
		}
		from = with
	}
	// To another repository of the registry, from which blobs are mounted.
	if _, _, err := r.strip(host+"/app:1", host+"/other:1"); err != nil {
		t.Error(err)
	}
	c := r.open(host + "/other:1")
	complete(t, c, c.Root)
}

func TestStripIndex(t *testing.T) {
	r, b := newRemote(t), newBuilder(t)
	one, trace := b.layer("one", false), b.layer("reads", true)
	amd, arm := b.image("amd64", one, trace), b.image("arm64", b.layer("other", false))
	about := func(d ocispec.Descriptor, text string) ocispec.Descriptor {
		a := b.image("unknown", b.layer(text, false))
		a.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": d.Digest.String()}
		return a
	}
	amdStatement, armStatement := about(amd, "of amd"), about(arm, "of arm")
	from := b.tag("1", b.many(amdStatement, amd, arm, armStatement, b.many(amd)))
	// The whole texts of index and manifest are those of an image that never
	// had a trace.
	bare := b.image("amd64", one)
	want := b.many(bare, arm, armStatement, b.many(bare))
	host := registrytest.Start(t, "")
	report, notes, err := r.strip(from, host+"/app:1")
	if err != nil || report.Digest != want.Digest || len(report.Images) != 3 || report.SourceDigest == report.Digest {
		t.Errorf("%+v, %v; want %s", report, err, want.Digest)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], amdStatement.Digest.String()) {
		t.Errorf("notes %q", notes)
	}
	c := r.open(host + "/app:1")
	complete(t, c, c.Root)
	// An index in which nothing changes.
	none := b.tag("2", b.many(arm, armStatement))
	report, notes, err = r.strip(none, host+"/app:2")
	if err != nil || report.Digest != report.SourceDigest || len(notes) > 0 {
		t.Errorf("%+v, %q, %v", report, notes, err)
	}
	deep := b.many(amd)
	for range 6 {
		deep = b.many(deep)
	}
	if _, _, err := r.strip(b.tag("deep", deep), host+"/app:3"); !errors.Is(err, source.ErrDepth) {
		t.Errorf("indexes without end: %v", err)
	}
}

// A blob that is not what its descriptor says leaves the destination's name as
// it was.
func TestStripDamaged(t *testing.T) {
	r, b := newRemote(t), newBuilder(t)
	one := b.layer("one", false)
	from := b.tag("1", b.image("amd64", one, b.layer("reads", true)))
	b.file("blobs/sha256/"+one.Digest.Encoded(), []byte("eno"))
	to := t.TempDir() + ":1"
	if report, _, err := r.strip(from, to); err == nil || !strings.Contains(err.Error(), one.Digest.String()) {
		t.Errorf("%+v, %v", report, err)
	}
	if c, err := source.OpenContent(t.Context(), to, source.Config{}); err == nil {
		t.Errorf("the name is there: %+v", c.Root)
	}
}

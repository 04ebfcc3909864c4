package traces_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/remote/registry/registrytest"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

const vectors = "../../../backstore/testdata/vectors/small-chain3/"

// reads is a trace of the small chain.
var reads = tracelayer.Trace{
	{Op: tracelayer.Read, Layer: 2, Off: 4096, Count: 8192},
	{Op: tracelayer.Read, Layer: 0, Off: 8192, Count: 4096},
	{Op: tracelayer.Read, Layer: 1, Off: 0, Count: 512},
}

// golden stores an overlaybd layer of the small chain.
func (b *builder) golden(name string) ocispec.Descriptor {
	b.t.Helper()
	data, err := os.ReadFile(vectors + name)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.layer(string(data), false)
}

// chain3 stores the layers of the small chain in one of their forms.
func (b *builder) chain3(form string) []ocispec.Descriptor {
	return []ocispec.Descriptor{b.golden("L0." + form), b.golden("L1." + form), b.golden("L2." + form)}
}

// write makes a file.
func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// attach attaches to an image, in place, and returns what was noted.
func (r *remote) attach(image string, cfg traces.AttachConfig) (*traces.Attachment, []string, error) {
	r.t.Helper()
	var notes []string
	cfg.Image, cfg.Note, cfg.Dir = r.open(image), func(s string) { notes = append(notes, s) }, r.t.TempDir()
	to := image
	if cfg.Image.Kind == source.KindLayout {
		to = cfg.Image.Name
	}
	cfg.Store = r.destination(to)
	report, err := traces.Attach(r.t.Context(), cfg)
	if left, e := os.ReadDir(cfg.Dir); e != nil || len(left) > 0 {
		r.t.Errorf("left %v, %v", left, e)
	}
	return report, notes, err
}

func recording(t *testing.T, files ...string) *traces.Recording {
	t.Helper()
	r, err := traces.OpenRecording(t.Context(), files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// attached reads an artifact and returns its manifest, and what its layer has.
func attached(t *testing.T, c *source.Content, report *traces.Attachment) (ocispec.Manifest, *traces.Recording) {
	t.Helper()
	var m ocispec.Manifest
	text, err := c.Read(t.Context(), ocispec.Descriptor{Digest: report.Artifact, MediaType: ocispec.MediaTypeImageManifest, Size: -1})
	if err != nil {
		all, _ := c.Referrers(t.Context(), report.Manifest, labels.TraceArtifact)
		i := slices.IndexFunc(all, func(d ocispec.Descriptor) bool { return d.Digest == report.Artifact })
		if i < 0 {
			t.Fatalf("%s is not listed, %v", report.Artifact, err)
		}
		text, err = c.Read(t.Context(), all[i])
	}
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil || len(m.Layers) != 1 {
		t.Fatalf("%s, %v", text, err)
	}
	b, err := c.Open(m.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	rec, err := traces.OpenLayer(t.Context(), b, true)
	if err != nil || len(rec.Notes) > 0 {
		t.Fatalf("%+v, %v", rec, err)
	}
	return m, rec
}

// What is attached to an image in a registry or a layout says all that a node
// needs, fits the layers, and leaves the image as it is.
func TestAttach(t *testing.T) {
	r, b := newRemote(t), newBuilder(t)
	layers := b.chain3("lz4-4k.tar")
	image := b.tag("1", b.image("amd64", layers...))
	host := registrytest.Start(t, "")
	if _, _, err := r.strip(image, host+"/app:1"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := write(t, dir+"/start.trace", reads.Encode())
	var artifacts []digest.Digest
	for _, where := range []string{image, host + "/app:1"} {
		before := r.open(where).Root.Digest
		cfg := traces.AttachConfig{Recording: recording(t, file), Workload: "web", Created: time.Unix(1e9, 5), Platform: "linux/amd64"}
		report, notes, err := r.attach(where, cfg)
		if err != nil || len(notes) > 0 {
			t.Fatalf("%s: %q, %v", where, notes, err)
		}
		c := r.open(where)
		if c.Root.Digest != before || report.Manifest != before || !report.Rebuilt || report.Reads != 3 || report.Data == 0 || report.Extents == 0 {
			t.Errorf("%s: %+v", where, report)
		}
		m, rec := attached(t, c, report)
		d := m.Layers[0]
		l, err := labels.Parse(d.Annotations)
		if err != nil || !l.Trace || l.Blob != d.Digest || l.BlobSize != d.Size || l.FSType != "erofs" || l.Plan.Size == 0 || d.Annotations[labels.Version] == "" {
			t.Errorf("%s: layer %+v, %v", where, d, err)
		}
		if m.ArtifactType != labels.TraceArtifact || m.Subject.Digest != before || m.Config.MediaType != ocispec.MediaTypeEmptyJSON ||
			m.Annotations[labels.TraceWorkload] != "web" || m.Annotations[ocispec.AnnotationCreated] != "2001-09-09T01:46:40Z" {
			t.Errorf("%s: %+v", where, m)
		}
		if !slices.Equal(rec.Trace, reads) || rec.Data == nil || len(rec.Plan.Layers) != 3 || rec.Plan.Layers[1].Digest != layers[1].Digest {
			t.Errorf("%s: %+v", where, rec)
		}
		matches(t, c, layers, rec.Plan)
		artifacts = append(artifacts, report.Artifact)
	}
	if artifacts[0] != artifacts[1] {
		t.Errorf("the same makes %q", artifacts)
	}
}

// matches fails the test unless the sums of a plan are those of the layers.
func matches(t *testing.T, c *source.Content, layers []ocispec.Descriptor, plan *tracelayer.Plan) {
	t.Helper()
	for i, e := range plan.Extents {
		b, err := c.Open(layers[e.Layer])
		p := make([]byte, e.Size)
		if err == nil {
			err = blob.ReadFull(t.Context(), b, p, e.Off)
		}
		if got := digest.FromBytes(p).Encoded(); err != nil || got != digest.NewDigestFromBytes(digest.SHA256, e.Sum[:]).Encoded() {
			t.Fatalf("extent %d, %v", i, err)
		}
	}
}

// Of several traces, each workload has one, the last that was attached.
func TestAttachWorkloads(t *testing.T) {
	r, b := newRemote(t), newBuilder(t)
	image := b.tag("1", b.image("amd64", b.chain3("zstd-64k.tar")...))
	other := b.tag("2", b.image("amd64", b.chain3("lz4-4k.tar")...))
	host := registrytest.Start(t, "")
	for _, to := range []string{":1", ":2"} {
		if _, _, err := r.strip(b.dir+to, host+"/app"+to); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for _, where := range [][2]string{{image, other}, {host + "/app:1", host + "/app:2"}} {
		step := func(image, workload string, at int64, count int64, want ...string) *traces.Attachment {
			t.Helper()
			trace := tracelayer.Trace{{Op: tracelayer.Read, Layer: 0, Off: 0, Count: count}}
			cfg := traces.AttachConfig{
				Recording: recording(t, write(t, dir+"/t", trace.Encode())), Workload: workload, Created: time.Unix(at, 0), NoData: true, Platform: "linux/amd64",
			}
			report, notes, err := r.attach(image, cfg)
			if err != nil || len(notes) > 0 {
				t.Fatalf("%q, %v", notes, err)
			}
			all, err := r.open(image).Referrers(t.Context(), report.Manifest, labels.TraceArtifact)
			var got []string
			for _, d := range all {
				got = append(got, d.Annotations[labels.TraceWorkload]+" "+d.Annotations[ocispec.AnnotationCreated][17:19])
			}
			slices.Sort(got)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: %q, %v; want %q", image, got, err, want)
			}
			return report
		}
		step(where[0], "web", 1, 512, "web 01")
		step(where[0], "", 2, 512, " 02", "web 01")
		step(where[1], "web", 3, 512, "web 03") // of another image
		step(where[0], "batch", 4, 512, " 02", "batch 04", "web 01")
		step(where[0], "web", 5, 4096, " 02", "batch 04", "web 05")
		step(where[0], "", 6, 512, " 06", "batch 04", "web 05")
		again := step(where[0], "web", 5, 4096, " 06", "batch 04", "web 05")
		if again.Data != 0 || again.Planned == 0 {
			t.Errorf("%+v", again)
		}
		step(where[0], "web", 3, 4096, " 06", "batch 04", "web 03") // older, but the last
	}
}

// What the recorder wrote beside a trace is used as it is, unless it is damaged.
func TestAttachBeside(t *testing.T) {
	r, b := newRemote(t), newBuilder(t)
	image := b.tag("1", b.image("amd64", b.chain3("lz4-4k.tar")...))
	dir := t.TempDir()
	plain := write(t, dir+"/plain", reads.Encode())
	at := time.Unix(1e9, 0)
	built, _, err := r.attach(image, traces.AttachConfig{Recording: recording(t, plain), Created: at, Platform: "linux/amd64"})
	if err != nil {
		t.Fatal(err)
	}
	_, rec := attached(t, r.open(image), built)
	plan, err := rec.Plan.Encode()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, rec.Data.Size())
	if err := blob.ReadFull(t.Context(), rec.Data, data, 0); err != nil {
		t.Fatal(err)
	}
	damaged := func(p []byte) []byte { p = bytes.Clone(p); p[len(p)/2] ^= 1; return p }
	for name, c := range map[string]struct {
		plan, data []byte
		noData     bool
		rebuilt    bool
		note       string
	}{
		"both":         {plan, data, false, false, ""},
		"no data kept": {plan, data, true, false, ""},
		"plan only":    {plan, nil, false, true, "no such file"},
		"plan damaged": {damaged(plan), data, false, true, ".plan is no use"},
		"data damaged": {plan, damaged(data), false, true, ".data are no use"},
		"data short":   {plan, data[1:], false, true, "the plan says"},
		"nothing":      {nil, nil, false, true, ""},
	} {
		file := write(t, filepath.Join(dir, strings.ReplaceAll(name, " ", "-")), reads.Encode())
		if c.plan != nil {
			write(t, file+".plan", c.plan)
		}
		if c.data != nil {
			write(t, file+".data", c.data)
		}
		got, notes, err := r.attach(image, traces.AttachConfig{Recording: recording(t, file), NoData: c.noData, Created: at, Platform: "linux/amd64"})
		if err != nil || got.Rebuilt != c.rebuilt || (len(notes) > 0) != (c.note != "") || len(notes) > 0 && !strings.Contains(notes[0], c.note) {
			t.Errorf("%s: %+v, %q, %v", name, got, notes, err)
			continue
		}
		if !c.noData && got.Artifact != built.Artifact || c.noData && got.Data != 0 {
			t.Errorf("%s: %+v, want artifact %s", name, got, built.Artifact)
		}
		attached(t, r.open(image), got)
	}
}

// A trace of another image is refused, with what differs. One with the same
// content in another form can be attached with a plan of its own.
func TestAttachToOtherImage(t *testing.T) {
	r, b := newRemote(t), newBuilder(t)
	layers := b.chain3("lz4-4k.tar")
	image := b.tag("1", b.image("amd64", layers...))
	zstd := b.tag("2", b.image("amd64", b.golden("L0.lz4-4k.tar"), b.golden("L1.zstd-64k.tar"), b.golden("L2.lz4-4k.tar")))
	two := b.tag("3", b.image("amd64", layers[:2]...))
	dir := t.TempDir()
	with := traces.AttachConfig{Recording: recording(t, write(t, dir+"/t", reads.Encode())), Platform: "linux/amd64"}
	report, _, err := r.attach(image, with)
	if err != nil {
		t.Fatal(err)
	}
	_, rec := attached(t, r.open(image), report)
	plan, err := rec.Plan.Encode()
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/t.plan", plan)
	with.Recording, with.NoData = recording(t, dir+"/t"), true
	far := tracelayer.Trace{{Op: tracelayer.Read, Layer: 1, Off: 1 << 40, Count: 512}, {Op: tracelayer.Read, Layer: 0, Count: 512}}
	above := tracelayer.Trace{{Op: tracelayer.Read, Layer: 3, Count: 512}}
	for name, c := range map[string]struct {
		image string
		cfg   traces.AttachConfig
		parts []string
	}{
		"another compression": {zstd, with, []string{"layer 1 is ", "the trace has " + layers[1].Digest.String(), "--rebuild"}},
		"fewer layers":        {two, with, []string{"it has 2 layers, the trace is of 3"}},
		"no such reads": {image, traces.AttachConfig{Recording: recording(t, write(t, dir+"/far", far.Encode())), Platform: "linux/amd64"}, []string{
			"1 of 2 reads are not of this image", "it reads layer 1 up to 1099511628288 bytes",
		}},
		"no such layer": {image, traces.AttachConfig{Recording: recording(t, write(t, dir+"/above", above.Encode())), Platform: "linux/amd64"}, []string{
			"1 of 1 reads are of more layers than the 3",
		}},
	} {
		got, _, err := r.attach(c.image, c.cfg)
		if !errors.Is(err, traces.ErrOtherImage) {
			t.Errorf("%s: %+v, %v", name, got, err)
			continue
		}
		for _, part := range c.parts {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v, want %q", name, err, part)
			}
		}
		if strings.Contains(err.Error(), "layer 0 is") {
			t.Errorf("%s: %v: layer 0 is the same", name, err)
		}
	}
	with.Rebuild = true
	got, _, err := r.attach(zstd, with)
	if err != nil || !got.Rebuilt {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, rec := attached(t, r.open(zstd), got); rec.Plan.Layers[1].Digest == layers[1].Digest {
		t.Errorf("%+v", rec.Plan.Layers)
	}
	if got, _, err := r.attach(two, with); !errors.Is(err, traces.ErrOtherImage) {
		t.Errorf("rebuilt for fewer layers: %+v, %v", got, err)
	}
}

// A trace layer in a file or another image is taken as it is, if it is whole.
func TestAttachLayer(t *testing.T) {
	r, b := newRemote(t), newBuilder(t)
	layers := b.chain3("lz4-4k.tar")
	image := b.tag("1", b.image("amd64", layers...))
	dir, at := t.TempDir(), time.Unix(1e9, 0)
	first, _, err := r.attach(image, traces.AttachConfig{Recording: recording(t, write(t, dir+"/t", reads.Encode())), Created: at, Platform: "linux/amd64"})
	if err != nil {
		t.Fatal(err)
	}
	tar := filepath.Join(b.dir, "blobs/sha256", first.Layer.Encoded())
	check := func(name string, got *traces.Attachment, notes []string, err error, rebuilt bool) {
		t.Helper()
		if err != nil || len(notes) > 0 || got.Artifact != first.Artifact || got.Rebuilt != rebuilt || got.Extents != first.Extents || got.Data != first.Data {
			t.Errorf("%s: %+v, %q, %v; want %+v", name, got, notes, err, first)
		}
	}
	got, notes, err := r.attach(image, traces.AttachConfig{Recording: recording(t, tar), Created: at, Platform: "linux/amd64"})
	check("file", got, notes, err, false)

	// The image that record-trace makes, elsewhere, and one without a plan.
	text, err := os.ReadFile(tar)
	if err != nil {
		t.Fatal(err)
	}
	trace := b.layer(string(text), true)
	var bare bytes.Buffer
	if _, err := tracelayer.WriteLayer(&bare, tracelayer.Contents{Slot: reads.Encode()}); err != nil {
		t.Fatal(err)
	}
	b.tag("new", b.image("amd64", append(slices.Clone(layers), trace)...))
	b.tag("upstream", b.image("amd64", append(slices.Clone(layers), b.layer(bare.String(), true))...))
	b.tag("other", b.image("amd64", layers[0], trace))
	host := registrytest.Start(t, "")
	if _, _, err := r.strip(b.dir+":1", host+"/app:1"); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{image, host + "/app:1"} {
		for tag, rebuilt := range map[string]bool{"new": false, "upstream": true} {
			rec, err := traces.FromImage(t.Context(), r.open(b.dir+":"+tag), "linux/amd64")
			if err != nil {
				t.Fatal(err)
			}
			got, notes, err := r.attach(where, traces.AttachConfig{Recording: rec, Created: at, Platform: "linux/amd64"})
			check(tag+" to "+where, got, notes, err, rebuilt)
			attached(t, r.open(where), got)
		}
	}
	// When it was made, the history of the image says.
	for at, config := range map[int64]string{
		1e9 + 1: `{"created":"2001-09-09T01:46:40Z","history":[{"created":"2001-09-09T01:46:41Z","created_by":"Acceleration Layer"},{"created":"2001-09-09T01:46:42Z"}]}`,
		1e9:     `{"created":"2001-09-09T01:46:40Z","history":[{"created":"2001-09-09T01:46:42Z"}]}`,
	} {
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: b.blob(ocispec.MediaTypeImageConfig, []byte(config)), Layers: append(slices.Clone(layers), trace)}
		m.SchemaVersion = 2
		tag := fmt.Sprint(at)
		b.tag(tag, b.json(ocispec.MediaTypeImageManifest, m))
		if rec, err := traces.FromImage(t.Context(), r.open(b.dir+":"+tag), ""); err != nil || rec.Time.Unix() != at {
			t.Errorf("recorded at %v, %v; want %d", rec.Time, err, at)
		}
	}
	if rec, err := traces.FromImage(t.Context(), r.open(image), "linux/amd64"); err == nil || !strings.Contains(err.Error(), "has no trace layer") {
		t.Errorf("%+v, %v", rec, err)
	}
	// An image whose trace is of other layers: its reads are checked, its plan
	// is no use.
	rec, err := traces.FromImage(t.Context(), r.open(b.dir+":other"), "linux/amd64")
	if err != nil || rec.Plan != nil || len(rec.Notes) != 1 {
		t.Errorf("%+v, %v", rec, err)
	}
	if got, _, err := r.attach(b.dir+":other", traces.AttachConfig{Recording: rec, Platform: "linux/amd64"}); !errors.Is(err, traces.ErrOtherImage) {
		t.Errorf("%+v, %v", got, err)
	}
}

// An index needs a platform, or is taken for this host's.
func TestAttachToIndex(t *testing.T) {
	r, b := newRemote(t), newBuilder(t)
	amd, arm := b.image("amd64", b.chain3("lz4-4k.tar")...), b.image("arm64", b.golden("L0.lz4-4k.tar"))
	image := b.tag("1", b.many(amd, arm))
	file := write(t, t.TempDir()+"/t", reads[1:2].Encode())
	for platform, want := range map[string]digest.Digest{"linux/amd64": amd.Digest, "linux/arm64": arm.Digest} {
		got, _, err := r.attach(image, traces.AttachConfig{Recording: recording(t, file), Platform: platform})
		if err != nil || got.Manifest != want || got.Platform != platform {
			t.Errorf("%s: %+v, %v", platform, got, err)
		}
	}
	if got, _, err := r.attach(image, traces.AttachConfig{Recording: recording(t, file), Platform: "linux/s390x"}); err == nil || !strings.Contains(err.Error(), "--platform") {
		t.Errorf("%+v, %v", got, err)
	}
	plain := b.layer("x", false)
	plain.Annotations = nil
	if got, _, err := r.attach(b.tag("2", b.image("amd64", plain)), traces.AttachConfig{Recording: recording(t, file), Platform: "linux/amd64"}); !errors.Is(err, source.ErrNotOverlaybd) {
		t.Errorf("%+v, %v", got, err)
	}
}

func layerOf(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// lister stands before a registry and adds the referrers API to it, which
// docker-registry lacks.
type lister struct {
	registry *httputil.ReverseProxy
	mu       sync.Mutex
	all      map[string][]ocispec.Descriptor // by subject
}

func newLister(t *testing.T, host string) string {
	t.Helper()
	l := &lister{registry: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host}), all: map[string][]ocispec.Descriptor{}}
	s := httptest.NewServer(l)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func (l *lister) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, subject, ok := strings.Cut(r.URL.Path, "/referrers/"); ok {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		json.NewEncoder(w).Encode(ocispec.Index{Manifests: l.all[subject]})
		return
	}
	if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		desc := ocispec.Descriptor{MediaType: r.Header.Get("Content-Type"), Digest: digest.FromBytes(text), Size: int64(len(text))}
		if entry, subject, ok := registry.Referrer(desc, text); ok {
			l.all[subject.Digest.String()] = append(l.all[subject.Digest.String()], entry)
			w.Header().Set("OCI-Subject", subject.Digest.String())
		}
		r.Body = io.NopCloser(bytes.NewReader(text))
	}
	l.registry.ServeHTTP(w, r)
}

// A registry that keeps the list of referrers lists all; the newest counts, and
// who attaches another one is told.
func TestAttachWhereRegistryLists(t *testing.T) {
	r, b := newRemote(t), newBuilder(t)
	image := newLister(t, registrytest.Start(t, "")) + "/app:1"
	if _, _, err := r.strip(b.tag("1", b.image("amd64", b.chain3("lz4-4k.tar")...)), image); err != nil {
		t.Fatal(err)
	}
	file := write(t, t.TempDir()+"/t", reads.Encode())
	step := func(workload string, at int64, listed int, note string) {
		t.Helper()
		report, notes, err := r.attach(image, traces.AttachConfig{
			Recording: recording(t, file), Workload: workload, Created: time.Unix(at, 0), NoData: true, Platform: "linux/amd64",
		})
		if err != nil || (len(notes) > 0) != (note != "") || len(notes) > 0 && !strings.Contains(notes[0], note) {
			t.Errorf("%q, %v; want %q", notes, err, note)
			return
		}
		all, err := r.open(image).Referrers(t.Context(), report.Manifest, labels.TraceArtifact)
		if err != nil || len(all) != listed || all[listed-1].Digest != report.Artifact {
			t.Errorf("%+v, %v; want %d", all, err, listed)
		}
	}
	step("web", 10, 1, "")
	step("web", 20, 2, "")
	step("", 5, 3, "")
	step("web", 15, 4, "has the same workload, is newer and still listed")
	step("web", 30, 5, "")
}

// A layer that can not be read, or that is not what its image says, has no plan.
func TestAttachToDamaged(t *testing.T) {
	r, b := newRemote(t), newBuilder(t)
	layers := b.chain3("lz4-4k.tar")
	image := b.tag("1", b.image("amd64", layers...))
	file := write(t, t.TempDir()+"/t", reads.Encode())
	path := filepath.Join(b.dir, "blobs/sha256", layers[2].Digest.Encoded())
	data := layerOf(t, path)
	for part, damage := range map[string]func() error{
		"no such file":                          func() error { return os.Remove(path) },
		"checksum":                              func() error { data[3000] ^= 1; return os.WriteFile(path, data, 0o644) },
		"has 100 bytes where the manifest says": func() error { return os.WriteFile(path, data[:100], 0o644) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		got, _, err := r.attach(image, traces.AttachConfig{Recording: recording(t, file), Platform: "linux/amd64"})
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %+v, %v", part, got, err)
		}
		data = layerOf(t, vectors+"L2.lz4-4k.tar")
	}
	if all, err := r.open(image).Referrers(t.Context(), r.open(image).Root.Digest, labels.TraceArtifact); err != nil || len(all) > 0 {
		t.Errorf("something is attached: %+v, %v", all, err)
	}
}

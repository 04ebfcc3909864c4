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

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/remote/registry/registrytest"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

// TestFind looks for traces of an image with and without a trace layer, in a
// layout and a registry.
func TestFind(t *testing.T) {
	r, b := newRemote(t), newBuilder(t)
	layers := b.chain3("zstd-64k.tar")
	bare := b.tag("bare", b.image("amd64", layers...))
	upstreams, err := os.ReadFile("../../../tracelayer/testdata/vectors/small-chain3.accel-layer.tar")
	if err != nil {
		t.Fatal(err)
	}
	traced := b.tag("traced", b.image("amd64", append(layers, b.layer(string(upstreams), true))...))
	host := registrytest.Start(t, "")
	if _, _, err := r.strip(bare, host+"/app:1"); err != nil {
		t.Fatal(err)
	}
	for _, image := range []string{bare, host + "/app:1"} {
		if _, err := traces.Find(t.Context(), r.open(image), "linux/amd64", ""); err == nil || !strings.Contains(err.Error(), "none is attached") {
			t.Errorf("%s: %v", image, err)
		}
		for i, workload := range []string{"web", "batch", "web"} {
			trace := tracelayer.Trace{{Op: tracelayer.Read, Count: int64(i+1) * 512}}
			_, _, err := r.attach(image, traces.AttachConfig{
				Recording: recording(t, write(t, t.TempDir()+"/t", trace.Encode())), Workload: workload,
				Created: time.Unix(int64(i)+100, 0), NoData: true, Platform: "linux/amd64",
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		got, err := traces.Find(t.Context(), r.open(image), "linux/amd64", "web")
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Trace) != 1 || got.Trace[0].Count != 1536 || got.Plan == nil || len(got.Layers) != 3 || got.Time.Unix() != 102 {
			t.Errorf("%s: %+v", image, got)
		}
		for _, other := range []string{"", "none"} {
			if _, err := traces.Find(t.Context(), r.open(image), "linux/amd64", other); err == nil || !strings.Contains(err.Error(), `there is "batch", "web"`) {
				t.Errorf("%s for %q: %v", image, other, err)
			}
		}
	}
	got, err := traces.Find(t.Context(), r.open(traced), "linux/amd64", "")
	if err != nil || len(got.Trace) != 39 {
		t.Errorf("%+v, %v", got, err)
	}
}

// attachOne attaches a trace with one read of so many bytes.
func (r *remote) attachOne(image, workload string, at, count int64) *traces.Attachment {
	r.t.Helper()
	trace := tracelayer.Trace{{Op: tracelayer.Read, Count: count}}
	report, _, err := r.attach(image, traces.AttachConfig{
		Recording: recording(r.t, write(r.t, r.t.TempDir()+"/t", trace.Encode())), Workload: workload,
		Created: time.Unix(at, 0), NoData: true, Platform: "linux/amd64",
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

// TestTake: what is taken of another image is its trace layer, or else what is
// attached to it, for the workload or for none. A trace layer that is damaged is an
// error, not nothing.
func TestTake(t *testing.T) {
	r, b := newRemote(t), newBuilder(t)
	layers := b.chain3("zstd-64k.tar")
	bare := b.tag("bare", b.image("amd64", layers...))
	damaged := b.tag("damaged", b.image("amd64", append(slices.Clone(layers), b.layer("no tar", true))...))
	take := func(image, workload string) (*traces.Recording, error) {
		return traces.Take(t.Context(), r.open(image), "linux/amd64", workload)
	}
	if _, err := take(bare, "web"); !errors.Is(err, traces.ErrNoTrace) {
		t.Errorf("nothing: %v", err)
	}
	r.attachOne(bare, "batch", 1, 512)
	if _, err := take(bare, "web"); !errors.Is(err, traces.ErrNoTrace) || !strings.Contains(err.Error(), `there is "batch"`) {
		t.Errorf("only another one: %v", err)
	}
	r.attachOne(bare, "", 2, 1024)
	r.attachOne(damaged, "web", 3, 512)
	for workload, want := range map[string]int64{"web": 1024, "": 1024, "batch": 512} {
		if got, err := take(bare, workload); err != nil || got.Trace[0].Count != want {
			t.Errorf("%q: %+v, %v", workload, got, err)
		}
	}
	if got, err := take(damaged, "web"); err == nil || errors.Is(err, traces.ErrNoTrace) {
		t.Errorf("a damaged trace layer: %+v, %v", got, err)
	}
}

// relist changes the entries of a layout's index.
func (b *builder) relist(change func(*ocispec.Descriptor)) {
	b.t.Helper()
	name := filepath.Join(b.dir, ocispec.ImageIndexFile)
	text, err := os.ReadFile(name)
	var index ocispec.Index
	if err := errors.Join(err, json.Unmarshal(text, &index)); err != nil {
		b.t.Fatal(err)
	}
	for i := range index.Manifests {
		change(&index.Manifests[i])
	}
	if text, err = json.Marshal(index); err != nil {
		b.t.Fatal(err)
	}
	write(b.t, name, text)
}

// TestAttachToBareList: a list without annotations says nothing of workloads, so a
// trace for one that is listed there is not replaced by one for another.
func TestAttachToBareList(t *testing.T) {
	r, b := newRemote(t), newBuilder(t)
	image := b.tag("1", b.image("amd64", b.chain3("zstd-64k.tar")...))
	web := r.attachOne(image, "web", 1, 512)
	b.relist(func(d *ocispec.Descriptor) {
		if d.ArtifactType == labels.TraceArtifact {
			d.Annotations = nil
		}
	})
	r.attachOne(image, "", 2, 1024)
	if got, err := traces.Find(t.Context(), r.open(image), "linux/amd64", "web"); err != nil || got.Trace[0].Count != 512 {
		t.Errorf("the trace for web: %+v, %v", got, err)
	}
	r.attachOne(image, "web", 3, 2048)
	all, err := r.open(image).Referrers(t.Context(), web.Manifest, labels.TraceArtifact)
	if err != nil || len(all) != 2 || slices.ContainsFunc(all, func(d ocispec.Descriptor) bool { return d.Digest == web.Artifact }) {
		t.Errorf("listed are %+v, %v", all, err)
	}
}

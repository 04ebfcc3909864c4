package traces_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/remote/registry/registrytest"
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

package main

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/snapshot/labels"
)

// overlaybd returns the annotations of an overlaybd layer, SELF standing for
// its digest.
func overlaybd(more ...string) map[string]string {
	a := map[string]string{
		labels.BlobDigest:   "SELF",
		labels.BlobSize:     "4096",
		"org.example/other": "not for snapshotters",
	}
	for i := 0; i < len(more); i += 2 {
		a[more[i]] = more[i+1]
	}
	return a
}

func TestPullTransfersOnlyManifestConfigAndTrace(t *testing.T) {
	client, sn := inProcess(t)
	bottom := tarLayer(t, "overlaybd.commit", "bottom", overlaybd())
	top := tarLayer(t, "overlaybd.commit", "top", overlaybd(labels.ImageRef, "evil.example.com/app:1"))
	trace := tarLayer(t, "trace", "reads", overlaybd(labels.Trace, "yes"))
	r := serve(t, bottom, top, trace)
	p := newPuller(client)
	p.labels = map[string]string{"team": "green"}

	ctx := namespaces.WithNamespace(t.Context(), "test")
	s, err := p.pull(ctx, r.ref())
	if err != nil {
		t.Fatal(err)
	}
	want := map[digest.Digest]int{r.manifest.Digest: 1, r.config.Digest: 1, trace.Digest: 1}
	if got := r.fetched(); !maps.Equal(got, want) {
		t.Errorf("fetched %v, want manifest, config and trace once each: %v", got, want)
	}
	if s.blobs != 3 || len(s.layers) != 3 || s.layers[0].origin != lazy || s.layers[1].origin != lazy ||
		s.layers[2].origin != downloaded || !s.layers[2].trace {
		t.Errorf("summary %+v", s)
	}
	for i, l := range sn.prepared() {
		told, err := labels.Parse(l)
		if err != nil || told.Image != r.ref() || l[labels.BlobDigest] == "" || l["org.example/other"] != "" {
			t.Errorf("Prepare %d got labels %v", i, l)
		}
	}
	img, err := client.GetImage(ctx, r.ref())
	if err != nil || img.Labels()["team"] != "green" {
		t.Errorf("image record: %v, %v", img, err)
	}
	if leases, err := client.LeasesService().List(ctx); err != nil || len(leases) != 0 {
		t.Errorf("leases left: %v, %v", leases, err)
	}
	// A second pull has nothing left to transfer and says the same of layers.
	again, err := p.pull(ctx, r.ref())
	if err != nil {
		t.Fatal(err)
	}
	if again.blobs != 0 || again.layers[0].origin != lazy || again.layers[2].origin != present {
		t.Errorf("second pull: %+v", again)
	}
}

func TestPullDownloadsWhenAsked(t *testing.T) {
	client, sn := inProcess(t)
	l := tarLayer(t, "overlaybd.commit", "bottom", overlaybd())
	r := serve(t, l)
	p := newPuller(client)
	p.download = true
	s, err := p.pull(namespaces.WithNamespace(t.Context(), "test"), r.ref())
	if err != nil {
		t.Fatal(err)
	}
	if s.layers[0].origin != downloaded || r.fetched()[l.Digest] != 1 {
		t.Errorf("summary %+v, fetched %v", s, r.fetched())
	}
	if sn.prepared()[0][labels.Download] != "download" {
		t.Errorf("Prepare got labels %v", sn.prepared()[0])
	}
}

func TestPullOfAnOrdinaryImage(t *testing.T) {
	client, _ := inProcess(t)
	r := serve(t, tarLayer(t, "etc", "plain", nil))
	p := newPuller(client)
	s, err := p.pull(namespaces.WithNamespace(t.Context(), "test"), r.ref())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.print(&out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "No layer is lazy") {
		t.Errorf("no hint in\n%s", out.String())
	}
}

func TestPullErrorsSayWhatToDo(t *testing.T) {
	client, _ := inProcess(t)
	ctx := namespaces.WithNamespace(t.Context(), "test")
	p := newPuller(client)
	p.snapshotter = "elsewhere"
	if _, err := p.pull(ctx, "localhost/app:1"); err == nil || !strings.Contains(err.Error(), "[proxy_plugins.elsewhere]") {
		t.Errorf("pulling with an unknown snapshotter: %v", err)
	}
	p.snapshotter = "overlaybd"
	r := serve(t)
	if _, err := p.pull(ctx, strings.Replace(r.ref(), ":1", ":2", 1)); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("pulling a missing tag: %v", err)
	}
}

func TestCommandsAreContainerdsAndOurs(t *testing.T) {
	var names []string
	for _, c := range newApp().Commands {
		names = append(names, c.Name)
	}
	for _, want := range []string{"version", "images", "containers", "run", "tasks", "snapshots", "content", "rpull", "record-trace", "push"} {
		if !slices.Contains(names, want) {
			t.Errorf("no command %s in %v", want, names)
		}
	}
}

func TestRpullFlags(t *testing.T) {
	var have []string
	for _, f := range rpullCommand().Flags {
		have = append(have, f.Names()...)
	}
	for _, want := range []string{
		"skip-verify", "k", "plain-http", "user", "u", "refresh", "hosts-dir", "tlscacert", "tlscert",
		"tlskey", "http-dump", "http-trace", "label", "snapshotter", "download-blobs", "platform",
	} {
		if !slices.Contains(have, want) {
			t.Errorf("rpull has no flag %s", want)
		}
	}
}

func TestSummaryPrint(t *testing.T) {
	s := &summary{
		name: "registry.example.com/app:1", target: digest.FromString("manifest"), snapshotter: "overlaybd",
		blobs: 3, bytes: 9000, elapsed: 1234e6,
		layers: []layer{
			{digest: digest.FromString("a"), size: 2251264, origin: lazy},
			{digest: digest.FromString("b"), size: 5632, origin: downloaded, trace: true},
		},
	}
	var out bytes.Buffer
	if err := s.print(&out); err != nil {
		t.Fatal(err)
	}
	want := "registry.example.com/app:1@" + s.target.String() + `
LAYER                SIZE     CONTENT
sha256:ca978112ca1b  2.1 MiB  lazy
sha256:3e23e8160039  5.5 KiB  downloaded (trace)
pulled in 1.23s: 1 of 2 layers (2.1 MiB) lazy, 8.8 KiB in 3 blobs transferred
`
	if got := out.String(); got != want {
		t.Errorf("printed\n%swant\n%s", got, want)
	}
}

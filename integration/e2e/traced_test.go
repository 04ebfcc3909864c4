package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/integration/coldstart"
	"github.com/reprise-containers/reprise/integration/sandbox"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

// checkTraced has reprise look at an image with a trace, and take that off.
func (n machine) checkTraced(t *testing.T, old, name string) {
	t.Helper()
	reprise := func(args ...string) string {
		out, err := n.Run(t.Context(), append([]string{n.Path("bin/reprise")}, args...)...)
		if err != nil {
			t.Error(err)
		}
		return out
	}
	ref := n.Registry.Address + "/"
	if out := reprise("check", ref+name); !strings.Contains(out, "0 problems") {
		t.Error(out)
	}
	reprise("trace", "strip", ref+name, ref+old+"-stripped")
	if was, is := n.resolve(t, old), n.resolve(t, old+"-stripped"); is.Digest != was.Digest {
		t.Errorf("without the trace again it is %s, was %s: %+v, %+v", is.Digest, was.Digest, n.manifest(t, old+"-stripped"), n.manifest(t, old))
	}
}

// record records and removes the new image at the end of the test.
func (n machine) record(t *testing.T, flags []string, old, name string, args ...string) string {
	t.Helper()
	begin := time.Now()
	out, err := n.Containerd.RecordTrace(t.Context(), flags, n.Ref(old), n.Ref(name), args...)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%sin %v", out, time.Since(begin))
}

func (n machine) pushTraced(t *testing.T, name string) string {
	t.Helper()
	out, err := n.Containerd.Push(t.Context(), n.Ref(name))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// forget makes the node one that has nothing.
func (n machine) forget(t *testing.T) {
	t.Helper()
	if err := coldstart.Forget(t.Context(), n.Node, nil); err != nil {
		t.Fatal(err)
	}
}

// traced is the trace layer of an image in the registry.
type traced struct {
	layers []ocispec.Descriptor // of the image
	slot   []byte
	plan   *tracelayer.Plan
}

// resolve asks the registry what a tag stands for.
func (n machine) resolve(t *testing.T, name string) ocispec.Descriptor {
	t.Helper()
	client, err := registry.New(registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	desc, err := client.Resolve(t.Context(), n.Registry.Address+"/"+name)
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

// manifest reads the manifest of an image in the registry.
func (n machine) manifest(t *testing.T, name string) (m ocispec.Manifest) {
	t.Helper()
	client, err := registry.New(registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ref := n.Registry.Address + "/" + name
	desc, err := client.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Fetch(t.Context(), ref, desc)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := json.NewDecoder(r).Decode(&m); err != nil {
		t.Fatal(err)
	}
	return m
}

// trace reads the topmost layer of an image.
func (n machine) trace(t *testing.T, name string) traced {
	t.Helper()
	client, err := registry.New(registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ref := n.Registry.Address + "/" + name
	got := traced{layers: n.manifest(t, name).Layers}
	top := got.layers[len(got.layers)-1]
	if !labels.IsTrace(top.Annotations) {
		t.Fatalf("the topmost layer of %s is no trace: %+v", name, top)
	}
	b, err := client.Open(ref, top)
	if err != nil {
		t.Fatal(err)
	}
	found, err := tracelayer.ReadLayer(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	got.slot = span(t, b, found.Slot)
	if got.plan, err = tracelayer.DecodePlan(span(t, b, found.Plan)); err != nil {
		t.Fatal(err)
	}
	if found.Data.Size != got.plan.DataSize() {
		t.Errorf("%d bytes of data, the plan says %d", found.Data.Size, got.plan.DataSize())
	}
	return got
}

func span(t *testing.T, b blob.ReaderAt, s tracelayer.Span) []byte {
	t.Helper()
	p := make([]byte, s.Size)
	if err := blob.ReadFull(t.Context(), b, p, s.Off); err != nil {
		t.Fatal(err)
	}
	return p
}

// records decodes a recording as upstream does.
func (l traced) records(t *testing.T) tracelayer.Trace {
	t.Helper()
	recorded, err := tracelayer.Decode(l.slot)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recorded {
		if r.Op != tracelayer.Read || r.Count < 1 || r.Count > tracelayer.MaxCount || int(r.Layer) >= len(l.layers)-1 {
			t.Fatalf("record %+v in an image of %d layers", r, len(l.layers))
		}
	}
	if len(recorded) == 0 || len(l.plan.Extents) == 0 {
		t.Errorf("%d records, %d extents", len(recorded), len(l.plan.Extents))
	}
	return recorded
}

// awaitLog waits until a process has printed something.
func awaitLog(t *testing.T, p *sandbox.Process, want string) {
	t.Helper()
	for {
		out, err := p.Log()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, want) {
			return
		}
		select {
		case <-p.Done():
			t.Fatalf("it ended, after %q", out)
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// nothingLeft checks that record-trace removed what it made.
func (n machine) nothingLeft(t *testing.T) {
	t.Helper()
	for what, args := range map[string][]string{"task": {"task", "ls", "-q"}, "container": {"container", "ls", "-q"}} {
		if out := n.ctr(t, args...); strings.TrimSpace(out) != "" {
			t.Errorf("%s left: %s", what, out)
		}
	}
	if out := strings.Split(strings.TrimSpace(n.ctr(t, "leases", "ls")), "\n"); len(out) > 1 {
		t.Errorf("leases left: %s", out)
	}
	names, err := n.Containerd.Snapshots(t.Context(), "overlaybd")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "record-trace") {
			t.Errorf("snapshot %s is left", name)
		}
	}
	left, err := os.ReadDir(n.Path("traces"))
	if err != nil || len(left) > 0 {
		t.Errorf("files left: %v, %v", left, err)
	}
}

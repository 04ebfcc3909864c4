package tracelayer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/tracelayer"
)

// write returns the trace layer of c.
func write(t testing.TB, c tracelayer.Contents) ([]byte, tracelayer.LayerInfo) {
	t.Helper()
	var b bytes.Buffer
	info, err := tracelayer.WriteLayer(&b, c)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size != int64(b.Len()) || info.Digest != digest.FromBytes(b.Bytes()) {
		t.Errorf("said to be %d bytes, %s; is %d bytes, %s", info.Size, info.Digest, b.Len(), digest.FromBytes(b.Bytes()))
	}
	return b.Bytes(), info
}

// full is the contents of a layer with everything: data of more than a buffer,
// and a plan of plan bytes.
func full(t testing.TB, plan int) (tracelayer.Contents, []byte) {
	data := bytes.Repeat([]byte("some data "), 50_000)
	return tracelayer.Contents{
		Slot: vector(t, "small-chain3.trace"),
		Plan: bytes.Repeat([]byte{7}, plan),
		Data: iotest.HalfReader(bytes.NewReader(data)), DataSize: int64(len(data)),
	}, data
}

// TestLayerIsUpstreams compares layers with those that upstream made of the same
// traces and lists, and reads these.
func TestLayerIsUpstreams(t *testing.T) {
	for name, slot := range map[string]string{
		"small-chain3": "small-chain3.trace",
		"medium-apply": "medium-apply.trace",
		"priority":     "priority.list",
	} {
		want := vector(t, name+".accel-layer.tar")
		got, info := write(t, tracelayer.Contents{Slot: vector(t, slot)})
		if !bytes.Equal(got, want) || info.Plan != (tracelayer.Member{}) {
			t.Errorf("%s: differs from upstream's, or has a plan: %+v", name, info.Plan)
		}
		l, err := tracelayer.ReadLayer(t.Context(), blobtest.Bytes(want))
		if err != nil || l.Plan != (tracelayer.Span{}) || l.Data != (tracelayer.Span{}) ||
			!bytes.Equal(want[l.Slot.Off:l.Slot.Off+l.Slot.Size], vector(t, slot)) {
			t.Errorf("%s: read as %+v, %v", name, l, err)
		}
	}
	image := vector(t, "busybox-obd-trace.accel-layer.tar")
	l, err := tracelayer.ReadLayer(t.Context(), blobtest.Bytes(image))
	if err != nil {
		t.Fatal(err)
	}
	trace, err := tracelayer.Decode(image[l.Slot.Off : l.Slot.Off+l.Slot.Size])
	if err != nil || len(trace) != 149 {
		t.Errorf("%d records, %v", len(trace), err)
	}
	if again, _ := write(t, tracelayer.Contents{Slot: image[l.Slot.Off : l.Slot.Off+l.Slot.Size]}); !bytes.Equal(again, image) {
		t.Error("the layer of upstream's image, written here, differs")
	}
}

func TestLayerMembers(t *testing.T) {
	for _, plan := range []int{1, 511, 512, 513, 100_000} {
		c, data := full(t, plan)
		b, info := write(t, c)
		l, err := tracelayer.ReadLayer(t.Context(), blobtest.Bytes(b))
		if err != nil {
			t.Fatal(err)
		}
		if l.Plan.Off != info.Plan.Offset || l.Plan.Size != info.Plan.Size || info.Plan.Digest != digest.FromBytes(c.Plan) {
			t.Errorf("plan of %d bytes: read as %+v, written as %+v", plan, l.Plan, info.Plan)
		}
		if at := tracelayer.DataOffset(info.Plan); l.Data.Off != at || l.Data.Size != int64(len(data)) {
			t.Errorf("plan of %d bytes: data are %+v, want offset %d", plan, l.Data, at)
		}
		for span, want := range map[tracelayer.Span][]byte{l.Slot: c.Slot, l.Plan: c.Plan, l.Data: data} {
			if !bytes.Equal(b[span.Off:span.Off+span.Size], want) {
				t.Errorf("plan of %d bytes: other bytes at %+v", plan, span)
			}
		}
	}
}

// TestLayerUnpacks has containerd unpack a layer, as a node does that knows
// nothing of traces.
func TestLayerUnpacks(t *testing.T) {
	c, data := full(t, 1000)
	b, _ := write(t, c)
	dir := t.TempDir()
	var opts []archive.ApplyOpt
	if os.Geteuid() != 0 {
		opts = append(opts, archive.WithNoSameOwner())
	}
	if _, err := archive.Apply(t.Context(), dir, bytes.NewReader(b), opts...); err != nil {
		t.Fatal(err)
	}
	var names []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"trace", "trace.data", "trace.plan"}; !slices.Equal(names, want) {
		t.Errorf("unpacked to %q, want %q", names, want)
	}
	for name, want := range map[string][]byte{"trace": c.Slot, "trace.plan": c.Plan, "trace.data": data} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: other bytes, or %v", name, err)
		}
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode() != 0o444 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
}

func TestWriteLayerBad(t *testing.T) {
	slot := []byte("/list\n")
	for want, c := range map[string]tracelayer.Contents{
		"neither a trace":    {},
		"trace has 67108865": {Slot: make([]byte, tracelayer.MaxSlot+1)},
		"plan has 16777217":  {Slot: slot, Plan: make([]byte, tracelayer.MaxPlan+1)},
		"-1 bytes":           {Slot: slot, Plan: slot, Data: strings.NewReader("a"), DataSize: -1},
		"8589934592 bytes":   {Slot: slot, Plan: slot, Data: strings.NewReader("a"), DataSize: 1 << 33},
		"there are no data":  {Slot: slot, Plan: slot, DataSize: 1},
		"without a plan":     {Slot: slot, Data: strings.NewReader("a"), DataSize: 1},
		"copying 2 bytes":    {Slot: slot, Plan: slot, Data: strings.NewReader("a"), DataSize: 2},
		"timeout":            {Slot: slot, Plan: slot, Data: iotest.TimeoutReader(strings.NewReader("ab")), DataSize: 2},
	} {
		if want == "timeout" {
			c.Data = iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("ab")))
		}
		_, err := tracelayer.WriteLayer(io.Discard, c)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	// A full disk, at every write.
	for n := range 12 {
		c, _ := full(t, 600)
		w := &failing{left: n}
		if _, err := tracelayer.WriteLayer(w, c); !errors.Is(err, errDisk) {
			t.Errorf("after %d writes: %v", n, err)
		}
	}
	// No more data than said are taken.
	b, _ := write(t, tracelayer.Contents{Slot: slot, Plan: slot, Data: strings.NewReader("abc"), DataSize: 2})
	if l, err := tracelayer.ReadLayer(t.Context(), blobtest.Bytes(b)); err != nil || l.Data.Size != 2 {
		t.Errorf("%+v, %v", l, err)
	}
}

var errDisk = errors.New("no space left")

type failing struct{ left int }

func (f *failing) Write(p []byte) (int, error) {
	if f.left == 0 {
		return 0, errDisk
	}
	f.left--
	return len(p), nil
}

// archived returns a tar archive of members of five bytes, or what size says.
func archived(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, 5
		}
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := tw.Write(make([]byte, h.Size)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadLayer(t *testing.T) {
	slot := tar.Header{Name: "trace"}
	// Written by others: another order, a long header, other files.
	long := tar.Header{Name: "./trace", PAXRecords: map[string]string{"comment.x": strings.Repeat("x", 2000)}}
	dir := tar.Header{Name: "trace.data", Typeflag: tar.TypeDir}
	b := archived(t, tar.Header{Name: "a"}, dir, tar.Header{Name: "trace.plan"}, long)
	l, err := tracelayer.ReadLayer(t.Context(), blobtest.Bytes(b))
	if err != nil || l.Slot.Size != 5 || l.Plan.Off != 2048 || l.Data != (tracelayer.Span{}) {
		t.Errorf("%+v, %v", l, err)
	}
	many := slices.Repeat([]tar.Header{{Name: "x"}}, 100)
	good := archived(t, slot)
	cut := archived(t, slot, tar.Header{Name: "trace.data"})
	for want, b := range map[string][]byte{
		"no member named":      archived(t, tar.Header{Name: "Trace"}),
		"member named \"trace": archived(t, append(many, slot)...), // not looked for so far behind
		"two members":          archived(t, slot, slot),
		"invalid tar header":   bytes.Replace(good, []byte("trace"), []byte("tracf"), 1),
		"no member":            nil,
		"unexpected EOF":       good[:100],
		"past the end":         cut[:1024+512+3],
		"more than 67108864":   archived(t, tar.Header{Name: "trace", Typeflag: tar.TypeReg, Size: tracelayer.MaxSlot + 1}),
		"plan\" has 16777217":  archived(t, tar.Header{Name: "trace.plan", Typeflag: tar.TypeReg, Size: tracelayer.MaxPlan + 1}),
	} {
		l, err := tracelayer.ReadLayer(t.Context(), blobtest.Bytes(b))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v, %v, want %q", l, err, want)
		}
	}
	faulty := blobtest.NewFaulty(blobtest.Bytes(good), blobtest.Fault{Fail: true})
	if _, err := tracelayer.ReadLayer(t.Context(), faulty); !errors.Is(err, blobtest.ErrInjected) {
		t.Errorf("a read that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tracelayer.ReadLayer(ctx, blobtest.Bytes(good)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestReadLayerIsCheap bounds what is read to find the members of a layer over
// the network.
func TestReadLayerIsCheap(t *testing.T) {
	c, _ := full(t, 100_000)
	b, _ := write(t, c)
	f := blobtest.NewFaulty(blobtest.Bytes(b))
	if _, err := tracelayer.ReadLayer(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	var n int
	for _, r := range f.Reads() {
		n += r.Len
	}
	if len(f.Reads()) > 4 || n > 8<<10 {
		t.Errorf("%d bytes in %d reads", n, len(f.Reads()))
	}
}

// FuzzReadLayer reads any bytes as a layer; members that it finds lie within.
func FuzzReadLayer(f *testing.F) {
	f.Add(vector(f, "small-chain3.accel-layer.tar"))
	c, _ := full(f, 600)
	c.Data, c.DataSize = strings.NewReader("data"), 4
	b, _ := write(f, c)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := tracelayer.ReadLayer(t.Context(), blobtest.Bytes(b))
		if err != nil {
			return
		}
		for _, s := range []tracelayer.Span{l.Slot, l.Plan, l.Data} {
			if s.Off < 0 || s.Size < 0 || s.Off > int64(len(b)) || s.Off+s.Size > int64(len(b)) {
				t.Fatalf("%+v in %d bytes", l, len(b))
			}
		}
	})
}

package traces_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/tracelayer"
)

// Several traces become one; what is no trace is none.
func TestOpenRecording(t *testing.T) {
	dir := t.TempDir()
	one := write(t, dir+"/one", reads.Encode())
	two := write(t, dir+"/two", reads[:2].Encode())
	list := write(t, dir+"/list", []byte("/etc/passwd\n /usr/lib/libstdc++.so \n"))
	both := recording(t, one, two)
	if len(both.Trace) == 0 || both.Plan != nil || both.Name != one+"+"+two {
		t.Errorf("%+v", both)
	}
	if r := recording(t, list); !slices.Equal(r.Paths, []string{"/etc/passwd", "/usr/lib/libstdc++.so"}) || r.Trace != nil {
		t.Errorf("%+v", r)
	}
	wrong := reads.Encode()
	wrong[30] ^= 1
	for part, files := range map[string][]string{
		"checksum":             {write(t, dir+"/wrong", wrong)},
		"neither a trace":      {write(t, dir+"/zeros", make([]byte, 100))},
		"there is neither":     {write(t, dir+"/empty", nil)},
		"has no reads":         {write(t, dir+"/none", tracelayer.Trace{}.Encode())},
		"is a list of files":   {one, list},
		"no such file":         {one, dir + "/nothing"},
		"no trace is given":    nil,
		`no member named "tra`: {write(t, dir+"/layer", layerOf(t, vectors+"L0.lz4-4k.tar"))},
	} {
		if r, err := traces.OpenRecording(t.Context(), files); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %+v, %v, want %q", files, r, err, part)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := traces.OpenRecording(ctx, []string{one}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// FuzzOpenLayer opens what may be a trace layer. What comes out fits together.
func FuzzOpenLayer(f *testing.F) {
	text, err := (&tracelayer.Plan{}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := tracelayer.WriteLayer(&b, tracelayer.Contents{Slot: reads.Encode(), Plan: text}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := traces.OpenLayer(t.Context(), memory(data), true)
		if err != nil {
			return
		}
		if (len(r.Trace) > 0) == (len(r.Paths) > 0) {
			t.Errorf("%d reads and %d paths", len(r.Trace), len(r.Paths))
		}
		if r.Plan == nil && r.Data != nil || r.Plan != nil && r.Data != nil && r.Data.Size() != r.Plan.DataSize() {
			t.Errorf("%+v has data without a plan for them", r)
		}
	})
}

// memory is a blob in memory.
type memory []byte

func (m memory) Size() int64 { return int64(len(m)) }

func (m memory) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}

func (m memory) Descriptor() ocispec.Descriptor { return ocispec.Descriptor{Size: int64(len(m))} }

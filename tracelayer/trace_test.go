package tracelayer_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/tracelayer"
)

// vector returns a file that upstream's tools wrote.
func vector(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/vectors", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// listed parses what upstream's own reader prints of a trace.
func listed(t *testing.T, name string) (trace tracelayer.Trace) {
	t.Helper()
	for line := range strings.Lines(string(vector(t, name))) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		var op byte
		var gap string
		var r tracelayer.Record
		if _, err := fmt.Sscanf(line, "%c %s %d %d %d", &op, &gap, &r.Layer, &r.Count, &r.Off); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		r.Op = tracelayer.Op(op)
		trace = append(trace, r)
	}
	return trace
}

// undefined reports whether byte i of a trace file is one that the format does
// not define: a gap, or the checksum, which depends on gaps.
func undefined(i int) bool {
	switch {
	case i < 24:
		return i >= 4 && i < 8 || i >= 16
	default:
		return i%24 >= 1 && i%24 < 4
	}
}

func TestUpstreamVectors(t *testing.T) {
	for name, records := range map[string]int{"small-chain3": 39, "medium-apply": 16} {
		file := vector(t, name+".trace")
		trace, err := tracelayer.Decode(file)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := listed(t, name+".trace.txt"); len(trace) != records || !slices.Equal(trace, want) {
			t.Errorf("%s: %d records %v, want %v", name, len(trace), trace, want)
		}
		ours := trace.Encode()
		if len(ours) != len(file) {
			t.Fatalf("%s: %d bytes, want %d", name, len(ours), len(file))
		}
		for i := range ours {
			if !undefined(i) && ours[i] != file[i] {
				t.Errorf("%s: byte %d is %#02x, want %#02x", name, i, ours[i], file[i])
			}
			if undefined(i) && (i < 16 || i >= 20) && ours[i] != 0 {
				t.Errorf("%s: gap at %d is %#02x", name, i, ours[i])
			}
		}
		if again, err := tracelayer.Decode(ours); err != nil || !slices.Equal(again, trace) {
			t.Errorf("%s: encoded again it is %v, %v", name, again, err)
		}
	}
}

// TestEncodeExample is the example of the format's description, which upstream
// replays.
func TestEncodeExample(t *testing.T) {
	trace := tracelayer.Trace{
		{Op: tracelayer.Read, Layer: 5, Off: 0, Count: 4096},
		{Op: tracelayer.Read, Layer: 5, Off: 1024, Count: 512},
		{Op: tracelayer.Read, Layer: 5, Off: 40960, Count: 8192},
	}
	want, err := hex.DecodeString(strings.ReplaceAll(`2018efc2 00000000 4800000000000000 ef1e7b06 00000000`+
		` 52000000 05000000 0010000000000000 0000000000000000`+
		` 52000000 05000000 0002000000000000 0004000000000000`+
		` 52000000 05000000 0020000000000000 00a0000000000000`, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	if got := trace.Encode(); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

func TestDecodeBad(t *testing.T) {
	for _, test := range []struct {
		name, want string
	}{
		{"bad-checksum.trace", "checksum 0x79db8f39, its header says 0x79db8f38"},
		{"truncated.trace", "360 bytes of records, its header says 384"},
		{"bad-size.trace", "384 bytes of records, its header says 360"},
		{"flipped-padding.trace", "checksum"},
	} {
		_, err := tracelayer.Decode(vector(t, test.name))
		if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, tracelayer.ErrFormat) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	for name, data := range map[string][]byte{
		"magic": vector(t, "bad-magic.trace"),
		"list":  vector(t, "priority.list"),
		"empty": nil,
		"short": vector(t, "small-chain3.trace")[:23],
	} {
		if _, err := tracelayer.Decode(data); !errors.Is(err, tracelayer.ErrFormat) {
			t.Errorf("%s: %v, want ErrFormat", name, err)
		}
	}
	// A size that is no multiple of a record, with the right checksum.
	odd := append(tracelayer.Trace{}.Encode(), 0)
	odd[8] = 1
	if _, err := tracelayer.Decode(odd); err == nil || !strings.Contains(err.Error(), "multiple") {
		t.Errorf("odd size: %v", err)
	}
}

func TestWithin(t *testing.T) {
	trace, err := tracelayer.Decode(vector(t, "layer9.trace"))
	if err != nil {
		t.Fatal(err)
	}
	good := len(trace) - 1
	trace = append(trace,
		tracelayer.Record{Op: tracelayer.Write, Count: 1},
		tracelayer.Record{Op: tracelayer.Read, Off: -1, Count: 1},
		tracelayer.Record{Op: tracelayer.Read, Count: 0},
		tracelayer.Record{Op: tracelayer.Read, Count: -1},
		tracelayer.Record{Op: tracelayer.Read, Off: math.MaxInt64, Count: math.MaxInt64},
		tracelayer.Record{Op: tracelayer.Read, Off: 7100416, Count: 1},
		tracelayer.Record{Op: tracelayer.Read, Layer: math.MaxUint32, Count: 1},
	)
	got, skipped := trace.Within([]int64{7100416, 2109440, 1978368})
	if len(got) != good || skipped != 8 || !slices.Equal(got, trace[1:1+good]) {
		t.Errorf("%d records, %d skipped, want %d and 8", len(got), skipped, good)
	}
}

func TestEncodeSplits(t *testing.T) {
	const odd = 3<<20 + 512
	got, err := tracelayer.Decode(tracelayer.Trace{
		{Op: tracelayer.Read, Layer: 1, Off: 100, Count: odd},
		{Op: tracelayer.Read, Layer: 2, Off: 7, Count: 1 << 20},
		{Op: tracelayer.Read, Count: 0},
		{Op: tracelayer.Read, Count: math.MinInt64},
	}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	want := tracelayer.Trace{
		{Op: tracelayer.Read, Layer: 1, Off: 100, Count: 1 << 20},
		{Op: tracelayer.Read, Layer: 1, Off: 100 + 1<<20, Count: 1 << 20},
		{Op: tracelayer.Read, Layer: 1, Off: 100 + 2<<20, Count: 1 << 20},
		{Op: tracelayer.Read, Layer: 1, Off: 100 + 3<<20, Count: 512},
		{Op: tracelayer.Read, Layer: 2, Off: 7, Count: 1 << 20},
		{Op: tracelayer.Read, Count: 0},
		{Op: tracelayer.Read, Count: math.MinInt64},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestFresh(t *testing.T) {
	got := tracelayer.Trace{
		{Op: tracelayer.Read, Off: 0, Count: 100},
		{Op: tracelayer.Read, Off: 50, Count: 100},
		{Op: tracelayer.Read, Layer: 3, Off: 50, Count: 100},
		{Op: tracelayer.Write, Off: 1000, Count: 100},
		{Op: tracelayer.Read, Off: 0, Count: 150},
		{Op: tracelayer.Read, Off: 0, Count: 151},
		{Op: tracelayer.Read, Off: 150, Count: 2},
	}.Fresh()
	if want := []int64{100, 50, 100, 0, 0, 1, 1}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// FuzzDecode decodes any bytes; what decodes says the same once it is encoded.
func FuzzDecode(f *testing.F) {
	for _, name := range []string{"small-chain3.trace", "layer9.trace", "truncated.trace", "bad-magic.trace"} {
		f.Add(vector(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		trace, err := tracelayer.Decode(data)
		if err != nil {
			return
		}
		again, err := tracelayer.Decode(trace.Encode())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range again {
			if r.Count > tracelayer.MaxCount {
				t.Fatalf("%+v was not split", r)
			}
		}
		within, _ := trace.Within([]int64{1 << 40, 1 << 40})
		merged := tracelayer.Merge([]tracelayer.Recording{{Trace: within}}, tracelayer.MergeConfig{})
		if got, want := sum(merged.Fresh()), sum(within.Fresh()); got != want {
			t.Fatalf("merged reads %d bytes, was %d", got, want)
		}
	})
}

func sum(counts []int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}

package tracelayer_test

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/reprise-containers/reprise/tracelayer"
)

func TestPack(t *testing.T) {
	noise := make([]byte, 10_000)
	_, _ = rand.Read(noise)
	for name, p := range map[string][]byte{
		"zeros": make([]byte, tracelayer.MaxExtent),
		"noise": noise,
		"both":  append(make([]byte, 10_000), noise...),
		"byte":  {1},
	} {
		stored, err := tracelayer.Pack(p)
		if err != nil {
			t.Fatal(err)
		}
		if smaller := len(stored) < len(p); smaller != (name == "zeros" || name == "both") || len(stored) > len(p) {
			t.Errorf("%s: %d bytes became %d", name, len(p), len(stored))
		}
		e := tracelayer.Extent{Size: int64(len(p)), Stored: int64(len(stored))}
		if got, err := e.Unpack(stored); err != nil || !bytes.Equal(got, p) {
			t.Errorf("%s: other bytes, or %v", name, err)
		}
	}
}

// TestUnpackBad unpacks what is not what the extent says. The frames that would
// become large must not: a limit on memory would not be noticed here, but their
// error says who refused them.
func TestUnpackBad(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	// Both with and without a size in the frame.
	bomb := enc.EncodeAll(make([]byte, 256<<20), nil)
	var streamed bytes.Buffer // a frame that does not say its size
	w, err := zstd.NewWriter(&streamed, zstd.WithWindowSize(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	for range 64 {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	small := enc.EncodeAll(make([]byte, 100), nil)
	for name, test := range map[string]struct {
		stored []byte
		size   int64
		want   string
	}{
		"bomb":      {bomb, 1 << 20, "window size exceeded"},
		"streamed":  {streamed.Bytes(), 1 << 20, "size exceeds"},
		"shorter":   {small, 101, "100 bytes, not 101"},
		"longer":    {small, 99, "exceeds"},
		"cut":       {small[:len(small)-1], 100, "unexpected EOF"},
		"no frame":  {[]byte("text"), 100, "unpacking extent"},
		"more":      {append(bytes.Clone(small), small...), 100, "exceeds"},
		"no stored": {nil, 100, "0 bytes of 0 stored"},
	} {
		e := tracelayer.Extent{Size: test.size, Stored: int64(len(test.stored))}
		if p, err := e.Unpack(test.stored); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %d bytes, %v, want %q", name, len(p), err, test.want)
		}
	}
	if _, err := (tracelayer.Extent{Size: 10, Stored: 10}).Unpack(make([]byte, 9)); err == nil {
		t.Error("nine bytes of ten were taken")
	}
}

package tracelayer_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/tracelayer"
)

func samplePlan() *tracelayer.Plan {
	sum := func(s string) [sha256.Size]byte { return sha256.Sum256([]byte(s)) }
	return &tracelayer.Plan{
		Layers: []tracelayer.PlanLayer{
			{Digest: digest.FromString("bottom"), Size: 1 << 40},
			{Digest: digest.FromString("top"), Size: 1000},
		},
		Extents: []tracelayer.Extent{
			{Layer: 0, Off: 1<<40 - 512, Size: 512, Sum: sum("a"), Stored: 300},
			{Layer: 1, Off: 0, Size: 1000, Sum: sum("b"), Stored: 1000},
			{Layer: 0, Off: 8192, Size: tracelayer.MaxExtent, Sum: sum("c")},
			{Layer: 0, Off: 8192 + tracelayer.MaxExtent, Size: 1, Sum: sum("d"), Stored: 1},
		},
	}
}

// reseal gives an encoded plan the checksum of what it says now.
func reseal(b []byte) []byte {
	body := b[:len(b)-4]
	return binary.LittleEndian.AppendUint32(bytes.Clone(body), crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
}

func TestPlanRoundTrip(t *testing.T) {
	for name, p := range map[string]*tracelayer.Plan{
		"sample": samplePlan(),
		"empty":  {Layers: []tracelayer.PlanLayer{}, Extents: []tracelayer.Extent{}},
		"random": randomPlan(3000),
	} {
		b, err := p.Encode()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := tracelayer.DecodePlan(b)
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%s: decoded to something else, or %v", name, err)
		}
		if n := len(p.Extents); n > 0 && len(b)-40*len(p.Layers)-36 > n*44 {
			t.Errorf("%s: %d bytes for %d extents", name, len(b), n)
		}
	}
	if n := samplePlan().DataSize(); n != 1301 {
		t.Errorf("%d bytes of data, want 1301", n)
	}
	if n := samplePlan().Size(); n != 1513+tracelayer.MaxExtent {
		t.Errorf("%d bytes of blobs", n)
	}
}

// randomPlan returns a plan of n extents like those of a start: some 20 KiB,
// here and there in five layers.
func randomPlan(n int) *tracelayer.Plan {
	rng := rand.New(rand.NewPCG(1, 2))
	p := &tracelayer.Plan{}
	for i := range 5 {
		p.Layers = append(p.Layers, tracelayer.PlanLayer{Digest: digest.FromString(string(rune('a' + i))), Size: 1 << 30})
	}
	for i := range n {
		e := tracelayer.Extent{Layer: rng.IntN(5), Off: int64(i) << 15, Size: 1 + rng.Int64N(1<<15)}
		e.Stored = []int64{e.Size, e.Size, 0, rng.Int64N(e.Size + 1)}[rng.IntN(4)]
		e.Sum[0] = byte(i)
		p.Extents = append(p.Extents, e)
	}
	rng.Shuffle(n, func(i, j int) { p.Extents[i], p.Extents[j] = p.Extents[j], p.Extents[i] })
	return p
}

// TestPlanBytes pins the format of docs/trace.md.
func TestPlanBytes(t *testing.T) {
	p := &tracelayer.Plan{
		Layers: []tracelayer.PlanLayer{{Digest: digest.NewDigestFromBytes(digest.SHA256, bytes.Repeat([]byte{0xAA}, 32)), Size: 0x1000}},
		Extents: []tracelayer.Extent{
			{Off: 0x400, Size: 0x200, Stored: 0x1FF},
			{Off: 0x300, Size: 0x10, Stored: 0x10},
		},
	}
	p.Extents[0].Sum = [32]byte(bytes.Repeat([]byte{0xBB}, 32))
	p.Extents[1].Sum = [32]byte(bytes.Repeat([]byte{0xCC}, 32))
	want := "726570726973652e706c616e" + "0100" + "01" + "00" + "01000000" + "02000000" + "0f02000000000000" +
		strings.Repeat("aa", 32) + "0010000000000000" +
		"00" + "8010" + "8004" + "01" + strings.Repeat("bb", 32) +
		"00" + "ff0b" + "10" + "00" + strings.Repeat("cc", 32)
	b, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(b[:len(b)-4]); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if !bytes.Equal(reseal(b), b) {
		t.Errorf("checksum %x", b[len(b)-4:])
	}
}

func TestPlanInvalid(t *testing.T) {
	for want, spoil := range map[string]func(p *tracelayer.Plan){
		"1025 layers": func(p *tracelayer.Plan) { p.Layers = make([]tracelayer.PlanLayer, 1025) },
		"layer 1":     func(p *tracelayer.Plan) { p.Layers[1].Digest = "sha256:zz" },
		"not SHA-256": func(p *tracelayer.Plan) {
			p.Layers[1].Digest = digest.NewDigestFromBytes(digest.SHA512, make([]byte, sha512.Size))
		},
		"size -1":        func(p *tracelayer.Plan) { p.Layers[1].Size = -1 },
		"of layer 2":     func(p *tracelayer.Plan) { p.Extents[1].Layer = 2 },
		"of layer -1":    func(p *tracelayer.Plan) { p.Extents[1].Layer = -1 },
		"size 0":         func(p *tracelayer.Plan) { p.Extents[1].Size, p.Extents[1].Stored = 0, 0 },
		"size 4194305":   func(p *tracelayer.Plan) { p.Extents[2].Size++ },
		"not in a layer": func(p *tracelayer.Plan) { p.Extents[1].Off = 1 },
		"at offset -1":   func(p *tracelayer.Plan) { p.Extents[1].Off = -1 },
		"take 1001":      func(p *tracelayer.Plan) { p.Extents[1].Stored = 1001 },
		"take -1":        func(p *tracelayer.Plan) { p.Extents[1].Stored = -1 },
		"2 and 3 of":     func(p *tracelayer.Plan) { p.Extents[3].Off-- },
		"overlap at":     func(p *tracelayer.Plan) { p.Extents[3] = p.Extents[2] },
		"0 and 3 of": func(p *tracelayer.Plan) { // of two layers that are one
			p.Layers = append(p.Layers, p.Layers[0])
			p.Extents[3] = tracelayer.Extent{Layer: 2, Off: 1<<40 - 1, Size: 1}
		},
		"262145 extents": func(p *tracelayer.Plan) {
			p.Extents = make([]tracelayer.Extent, tracelayer.MaxExtents+1)
		},
		"offset 1099511627": func(p *tracelayer.Plan) { p.Extents[3].Off = 1<<40 - 1 },
	} {
		p := samplePlan()
		spoil(p)
		if _, err := p.Encode(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestDecodePlanBad(t *testing.T) {
	good, err := samplePlan().Encode()
	if err != nil {
		t.Fatal(err)
	}
	const extents = 32 + 2*40
	for want, spoil := range map[string]func(b []byte) []byte{
		"magic":              func(b []byte) []byte { b[0]++; return b },
		"wrong magic":        func(b []byte) []byte { return b[:35] },
		"version 2":          func(b []byte) []byte { b[12]++; return b },
		"hash 2":             func(b []byte) []byte { b[14]++; return b },
		"reserved byte 1":    func(b []byte) []byte { b[15]++; return b },
		"3 layers":           func(b []byte) []byte { b[16]++; return b[:extents+4] },
		"4294967295 layers":  func(b []byte) []byte { copy(b[16:], "\xff\xff\xff\xff"); return b },
		"262145 extents":     func(b []byte) []byte { copy(b[20:], "\x01\x00\x04\x00"); return b },
		"4294967295 extents": func(b []byte) []byte { copy(b[20:], "\xff\xff\xff\xff"); return b },
		"behind its extents": func(b []byte) []byte { return append(b, 0) },
		"data, its header":   func(b []byte) []byte { b[24]++; return b },
		"layer 0 has":        func(b []byte) []byte { b[32+32+7]++; return b },
		"is of layer 2":      func(b []byte) []byte { b[extents] = 2; return b },
		"too long":           func(b []byte) []byte { return append(append(b[:extents:extents], 0x80, 0), b[extents+1:]...) },
		"number is too long": func(b []byte) []byte { copy(b[extents:], bytes.Repeat([]byte{0xFF}, 12)); return b },
		"ends early":         func(b []byte) []byte { return b[:len(b)-10] },
		"bytes from the one": func(b []byte) []byte {
			return append(append(b[:extents+1:extents+1], "\xff\xff\xff\xff\xff\xff\xff\xff\x7f"...), b[extents+7:]...)
		},
		"are not in a layer":   func(b []byte) []byte { copy(b[32+32:], "\x00\x10\x00\x00\x00\x00"); return b },
		"less in the data":     func(b []byte) []byte { copy(b[extents+9:], "\xff\x7f"); return b },
		"checksum 0x00000000,": nil,
	} {
		b := bytes.Clone(good)
		if spoil == nil { // without its own checksum only
			b, want = append(b[:len(b)-1], b[len(b)-1]+1), "its end says"
		} else {
			b = reseal(spoil(b))
		}
		if _, err := tracelayer.DecodePlan(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// FuzzDecodePlan decodes any bytes, with the right checksum; what decodes is
// valid and encodes to them again.
func FuzzDecodePlan(f *testing.F) {
	for _, p := range []*tracelayer.Plan{samplePlan(), randomPlan(10), {}} {
		b, err := p.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 36 {
			return
		}
		b = reseal(b)
		p, err := tracelayer.DecodePlan(b)
		if err != nil {
			return
		}
		if again, err := p.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x, %v, want %x", again, err, b)
		}
	})
}

func BenchmarkDecodePlan(b *testing.B) {
	data, err := randomPlan(10_000).Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := tracelayer.DecodePlan(data); err != nil {
			b.Fatal(err)
		}
	}
}

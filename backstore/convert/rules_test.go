package convert_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/convert"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob"
)

// The tests of this file take converted layers apart byte by byte, with nothing
// of the packages that wrote them, and hold each rule that overlaybd's readers
// have against what they find. TestVectorsKeepTheRules has the same checks look
// at what overlaybd's own tools wrote, so that the checks are right.

//nolint:gochecknoglobals // constants that Go can't express
var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// rawCRC is CRC-32C without inversions.
func rawCRC(seed uint32, b []byte) uint32 { return ^crc32.Update(^seed, castagnoli, b) }

// rules collects what is broken.
type rules struct {
	t      *testing.T
	failed int
}

func (r *rules) check(ok bool, format string, args ...any) {
	r.t.Helper()
	if ok {
		return
	}
	if r.failed++; r.failed < 20 {
		r.t.Errorf("broken rule: "+format, args...)
	}
}

// tarPayload checks the archive and returns its first member's content.
func (r *rules) tarPayload(b []byte) []byte {
	r.t.Helper()
	pax, body, header := b[:512], b[512:1024], b[1024:1536]
	r.check(bytes.Equal(pax[:100], pad("overlaybd.pax", 100)), "name of the pax header %q", pax[:100])
	r.check(bytes.Equal(pax[100:124], make([]byte, 24)), "mode, uid, gid of the pax header are NUL")
	length, value, _ := strings.Cut(strings.TrimRight(string(body), "\x00"), " ")
	record := length + " " + value
	r.check(length == fmt.Sprint(len(record)), "the pax record counts itself: %q", record)
	r.check(string(pax[124:136]) == fmt.Sprintf("%11o ", len(record)), "size of the pax header %q", pax[124:136])
	r.check(bytes.Equal(pax[136:148], make([]byte, 12)), "mtime of the pax header is NUL")
	r.check(pax[156] == 'x', "type of the pax header %q", pax[156])
	r.check(string(pax[257:265]) == "ustar\x0000", "magic of the pax header %q", pax[257:265])
	r.check(string(pax[148:156]) == tarSum(pax), "checksum of the pax header %q", pax[148:156])
	r.check(bytes.Equal(header[:100], pad("overlaybd.commit", 100)), "name %q", header[:100])
	for _, f := range []struct {
		from, to int
		want     string
	}{
		{100, 108, "100644 \x00"}, {108, 116, "     0 \x00"}, {116, 124, "     0 \x00"},
		{124, 136, "          0 "}, {136, 148, "          0 "}, {156, 157, "0"}, {257, 265, "ustar\x0000"},
	} {
		r.check(string(header[f.from:f.to]) == f.want, "bytes %d to %d of the header are %q, not %q", f.from, f.to, header[f.from:f.to], f.want)
	}
	r.check(string(header[148:156]) == tarSum(header), "checksum of the header %q", header[148:156])
	var size int
	if _, err := fmt.Sscanf(value, "size=%d\n", &size); err != nil || 1536+size > len(b) {
		r.t.Fatalf("pax record %q of a blob of %d bytes: %v", record, len(b), err)
	}
	end := 1536 + (size+511)/512*512
	r.check(bytes.Count(b[1536+size:end], []byte{0}) == end-1536-size, "the payload is padded with zeros")
	r.check(len(b)%512 == 0 && bytes.Equal(b[len(b)-1024:], make([]byte, 1024)), "two blocks of zeros end the archive")
	return b[1536 : 1536+size]
}

func pad(s string, n int) []byte { return append([]byte(s), make([]byte, n-len(s))...) }

func tarSum(b []byte) string {
	sum := 0
	for i, c := range b {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int(c)
	}
	return fmt.Sprintf("%6o \x00", sum)
}

// stream checks the ZFile and returns what is in it.
func (r *rules) stream(z []byte) []byte {
	r.t.Helper()
	const magic = "ZFile\x00\x01\x00tuji.yyf@Alibaba"
	head, trailer := z[:512], z[len(z)-512:]
	r.check(string(head[:24]) == magic && string(trailer[:24]) == magic, "magic")
	r.check(le.Uint64(head[32:]) == 0x1b, "flags of the header %#x", le.Uint64(head[32:]))
	r.check(le.Uint64(trailer[32:]) == 0x16, "flags of the trailer %#x", le.Uint64(trailer[32:]))
	for name, b := range map[string][]byte{"header": head, "trailer": trailer} {
		zeroed := bytes.Clone(b)
		clear(zeroed[28:32])
		r.check(le.Uint32(b[24:]) == 96, "size field of the %s", name)
		r.check(le.Uint32(b[28:]) == rawCRC(0, zeroed), "digest of the %s", name)
		r.check(b[77] == 0 && b[78] == 0 && b[79] == 0 && b[88] == 1, "level, dictionary, padding, verify of the %s", name)
		r.check(le.Uint32(b[68:]) == 0 && le.Uint32(b[80:]) == 0 && le.Uint32(b[84:]) == 0, "reserved fields and dictionary size of the %s", name)
		r.check(bytes.Equal(b[89:], make([]byte, 512-89)), "the end of the %s is zero", name)
	}
	r.check(bytes.Equal(head[40:28+68], trailer[40:28+68]), "header and trailer agree")
	index, blocks, size := int(le.Uint64(head[40:])), int(le.Uint64(head[48:])), int(le.Uint64(head[56:]))
	blockSize := int(le.Uint32(head[72:]))
	r.check(blockSize >= 4096 && blockSize <= 32768 && blockSize&(blockSize-1) == 0, "block size %d", blockSize)
	r.check(blocks == (size+blockSize-1)/blockSize, "%d blocks for %d bytes", blocks, size)
	r.check(index+4*blocks+512 == len(z), "the jump table lies between blocks and trailer")
	table := z[index : index+4*blocks]
	r.check(le.Uint32(head[64:]) == rawCRC(0, table), "checksum of the jump table")
	return r.blocks(z[512:index], table, blockSize, size, head[76])
}

// blocks checks and decodes all blocks.
func (r *rules) blocks(stored, table []byte, blockSize, size int, algorithm byte) []byte {
	r.t.Helper()
	out := make([]byte, 0, size)
	group, at := 0, 0
	decoder, err := zstd.NewReader(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	defer decoder.Close()
	for i := 0; i < len(table)/4; i++ {
		n := int(le.Uint32(table[4*i:]))
		if i%(65536/blockSize) == 0 {
			group = 0
		}
		r.check(n > 4 && n <= 65536, "stored length %d of block %d", n, i)
		r.check(group < 65535, "stored lengths of the group of block %d", i)
		group += n
		b := stored[at : at+n-4]
		r.check(le.Uint32(stored[at+n-4:]) == rawCRC(100007, b), "checksum of block %d", i)
		at += n
		raw := make([]byte, min(blockSize, size-len(out)))
		switch algorithm {
		case 1:
			got, err := lz4.UncompressBlock(b, raw)
			r.check(err == nil && got == len(raw), "LZ4 block %d: %d bytes, %v", i, got, err)
		case 2:
			var h zstd.Header
			err := h.Decode(b)
			r.check(err == nil && h.HasFCS && int(h.FrameContentSize) == len(raw) && !h.HasCheckSum && h.DictionaryID == 0,
				"zstd frame of block %d: %+v, %v", i, h, err)
			got, err := decoder.DecodeAll(b, nil)
			r.check(err == nil && len(got) == len(raw), "zstd block %d: %d bytes, %v", i, len(got), err)
			copy(raw, got)
		default:
			r.t.Fatalf("algorithm %d", algorithm)
		}
		out = append(out, raw...)
	}
	r.check(at == len(stored), "the blocks end where the jump table starts")
	return out
}

// lsmt checks a committed layer.
func (r *rules) lsmt(b []byte) {
	r.t.Helper()
	const magic = "LSMT\x00\x01\x02\x00\x65\x7e\x63\xd2\x94\x44\x08\x4c\xa2\xd2\xc8\xec\x4f\xcf\xae\x8a"
	head, trailer := b[:4096], b[len(b)-4096:]
	for name, h := range map[string][]byte{"header": head, "trailer": trailer} {
		r.check(string(h[:24]) == magic, "magic of the %s", name)
		r.check(le.Uint32(h[24:]) == 390 && h[132] == 1 && h[133] == 1, "size and version of the %s", name)
		r.check(h[92] == 0 && h[129] == 0 && validUUID(h[56:92]) && validUUID(h[93:129]), "UUIDs of the %s: %q, %q", name, h[56:93], h[93:130])
		r.check(bytes.Equal(h[390:], make([]byte, 4096-390)), "the end of the %s is zero", name)
	}
	r.check(le.Uint32(head[28:]) == 0x07 && le.Uint32(trailer[28:]) == 0x06, "flags %#x and %#x", le.Uint32(head[28:]), le.Uint32(trailer[28:]))
	r.check(le.Uint64(head[32:]) == 0 && le.Uint64(head[40:]) == 0, "the header has no index")
	r.check(bytes.Equal(head[48:390], trailer[48:390]), "header and trailer agree")
	index, records := le.Uint64(trailer[32:]), le.Uint64(trailer[40:])
	r.check(records%256 == 0 && records <= 1_000_000, "%d records", records)
	if uint64(len(b)) != index+16*records+4096 {
		r.t.Fatalf("an index of %d records at %d in a stream of %d bytes", records, index, len(b))
	}
	r.index(b[index:index+16*records], index/512, le.Uint64(trailer[48:])/512)
}

// index checks the records of a layer with data up to sector end of its stream
// and a disk of so many sectors.
func (r *rules) index(b []byte, end, disk uint64) {
	r.t.Helper()
	const invalid = 1<<50 - 1
	cursor, last, padding := uint64(8), uint64(0), 0
	for ; len(b) > 0; b = b[16:] {
		w0, w1 := le.Uint64(b), le.Uint64(b[8:])
		offset, length := w0&invalid, w0>>50
		mapped, zeroed, tag := w1&(1<<55-1), w1>>55&1 == 1, w1>>56
		if offset == invalid {
			r.check(w0 == invalid && w1 == 0, "padding record %#x %#x", w0, w1)
			padding++
			continue
		}
		r.check(padding == 0, "a record after padding")
		r.check(offset >= last && offset+length <= disk, "record at %d+%d after %d on a disk of %d sectors", offset, length, last, disk)
		r.check(length >= 1 && length <= 16383 && tag == 0, "length %d, tag %d", length, tag)
		r.check(mapped == cursor, "record at %d maps to %d where the data is at %d", offset, mapped, cursor)
		last = offset + length
		if !zeroed {
			cursor += length
		}
		r.check(cursor <= end, "record at %d maps beyond the data", offset)
	}
	r.check(cursor == end, "the data ends at %d, the index starts at %d", cursor, end)
	r.check(padding < 256, "%d records of padding", padding)
}

func validUUID(b []byte) bool {
	for i, c := range string(b) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && !strings.ContainsRune("0123456789ABCDEF", c) {
			return false
		}
	}
	return true
}

// layer checks a whole layer blob.
func (r *rules) layer(b []byte) {
	r.t.Helper()
	r.lsmt(r.stream(r.tarPayload(b)))
}

// TestConvertedLayersKeepTheRules of overlaybd's format, in every compression.
func TestConvertedLayersKeepTheRules(t *testing.T) {
	noise := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{}).Read(noise)
	base := []entry{file("noise", string(noise)), file("holes", "x"+strings.Repeat("\x00", 1<<20)+"y")}
	var change []entry
	for i := range 3000 {
		base = append(base, file(fmt.Sprintf("many/%d", i), strings.Repeat(fmt.Sprintln(i), i%500)))
		if i%7 == 0 {
			change = append(change, file(fmt.Sprintf("many/%d", i), "changed"))
		}
	}
	archives := [][]byte{archive(t, base...), archive(t, change...), archive(t)}
	for _, algorithm := range []zfile.Algorithm{zfile.LZ4, zfile.ZSTD} {
		for _, size := range []int{4096, 8192, 16384, 32768} {
			t.Run(fmt.Sprint(algorithm, size), func(t *testing.T) {
				img := run(t, convert.Options{Compression: zfile.Options{Algorithm: algorithm, BlockSize: size}}, archives...)
				for n, name := range img.files {
					b, err := os.ReadFile(name)
					if err != nil {
						t.Fatal(err)
					}
					r := &rules{t: t}
					r.layer(b)
					r.identity(b, n)
				}
			})
		}
	}
}

// identity checks the UUIDs: the chain IDs, as overlaybd's converter has them.
func (r *rules) identity(b []byte, n int) {
	r.t.Helper()
	s := r.stream(r.tarPayload(b))
	form := func(hex string) string {
		return strings.ToUpper(hex[:8] + "-" + hex[8:12] + "-" + hex[12:16] + "-" + hex[16:20] + "-" + hex[20:32])
	}
	parent := "00000000-0000-0000-0000-000000000000"
	if n > 0 {
		parent = form(id(n).ParentChainID.Encoded())
	}
	r.check(string(s[56:92]) == form(id(n).ChainID.Encoded()), "UUID %q", s[56:92])
	r.check(string(s[93:129]) == parent, "parent's UUID %q", s[93:129])
	r.check(le.Uint64(s[48:]) == convert.DefaultVirtualSize, "virtual size %d", le.Uint64(s[48:]))
}

// memory is a blob in memory.
type memory []byte

func (m memory) Size() int64 { return int64(len(m)) }
func (m memory) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}

// TestVectorsKeepTheRules has the checks look at layers of overlaybd's own tools.
func TestVectorsKeepTheRules(t *testing.T) {
	const vectors = "../testdata/vectors/small-chain3/"
	for _, name := range []string{"L0.lz4-4k.tar", "L1.lz4-4k.tar", "L2.lz4-4k.tar"} {
		b, err := os.ReadFile(vectors + name)
		if err != nil {
			t.Fatal(err)
		}
		(&rules{t: t}).layer(b)
		// The readers of this project see the same stream.
		s, err := backstore.Stream(t.Context(), memory(b))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, s.Size())
		if err := blob.ReadFull(t.Context(), s, got, 0); err != nil {
			t.Fatal(err)
		}
		r := &rules{t: t}
		if !bytes.Equal(got, r.stream(r.tarPayload(b))) {
			t.Errorf("%s: streams differ", name)
		}
	}
}

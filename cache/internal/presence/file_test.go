package presence_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/reprise-containers/reprise/cache/internal/presence"
)

// sealed returns file with its checksum made right.
func sealed(file []byte) []byte {
	binary.LittleEndian.PutUint32(file[8:], crc32.Checksum(file[12:], crc32.MakeTable(crc32.Castagnoli)))
	return file
}

// oldFile is a file of version 1, of a blob of 2 MiB and 100 bytes: a bit for
// each 512 bytes.
func oldFile(id presence.Identity) []byte {
	file := append([]byte("RPRSMAP\x01"), make([]byte, 32)...)
	binary.LittleEndian.PutUint32(file[12:], uint32(len(id.Digest)))
	binary.LittleEndian.PutUint64(file[16:], uint64(id.Size))
	binary.LittleEndian.PutUint64(file[24:], id.Inode)
	file[32] = 1
	file = append(file, id.Digest...)
	file = append(file, make([]byte, 4+256)...)
	file[len(file)-256] = 0xff
	return sealed(file)
}

func TestParseRefuses(t *testing.T) {
	id := presence.Identity{Digest: "sha256:ab", Size: 2<<20 + 100, Inode: 7}
	m := presence.New(id.Size)
	m.Set(3, 500)
	m.Set(1000, 24)
	m.Set(2<<20, 100)
	good := m.Append(nil, id)
	// Two runs: index, 4, the bounds 3, 503, 1000, 1024; index, 2, 0, 100.
	first := 40 + len(id.Digest)
	second := first + 8 + 16
	change := func(f func([]byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return sealed(b)
	}
	put := func(at int, v uint32) []byte {
		return change(func(b []byte) { binary.LittleEndian.PutUint32(b[at:], v) })
	}
	crowded := bytes.Clone(good[:second])
	binary.LittleEndian.PutUint32(crowded[32:], 1)
	binary.LittleEndian.PutUint32(crowded[first+4:], 8194)
	for x := range uint32(8190) {
		crowded = binary.LittleEndian.AppendUint32(crowded, 2000+x)
	}
	if len(good) != second+8+8 {
		t.Fatalf("the file has %d bytes", len(good))
	}
	bad := bytes.Clone(good)
	bad[len(bad)-1]++
	magic := bytes.Clone(good)
	magic[0]++
	for name, file := range map[string][]byte{
		"empty":         nil,
		"cut":           good[:len(good)-1],
		"cut, sealed":   sealed(bytes.Clone(good[:len(good)-4])),
		"header only":   sealed(bytes.Clone(good[:40])),
		"cut at a run":  sealed(bytes.Clone(good[:second])),
		"cut in a run":  sealed(bytes.Clone(good[:second+4])),
		"longer":        sealed(append(bytes.Clone(good), 0)),
		"magic":         magic,
		"bit":           bad,
		"version 1":     oldFile(id),
		"runs":          put(32, 3),
		"many runs":     put(32, 1<<32-1),
		"fewer runs":    put(32, 1),
		"reserved":      put(36, 1),
		"digest":        change(func(b []byte) { b[40]++ }),
		"long name":     put(12, 1<<32-1),
		"inode":         change(func(b []byte) { b[24]++ }),
		"size":          change(func(b []byte) { b[16]++ }),
		"order":         put(first, 2),
		"far run":       put(second, 3),
		"no bounds":     put(second+4, 0),
		"odd bounds":    put(first+4, 3),
		"many bounds":   put(first+4, 1<<32-2),
		"too many":      sealed(crowded),
		"equal bounds":  put(first+12, 3),
		"falling":       put(first+12, 2),
		"past blob end": put(second+12, 101),
		"past run end":  put(first+20, 1<<20+1),
	} {
		if _, err := presence.Parse(file, id); !errors.Is(err, presence.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, file := range map[string][]byte{"good": good, "to the run's end": put(first+20, 1<<20)} {
		if _, err := presence.Parse(file, id); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzParse has files with a checksum that is right. What is accepted must be
// what is written again, and every range of it be within the blob.
func FuzzParse(f *testing.F) {
	id := presence.Identity{Digest: "d", Size: 5<<20 + 77, Inode: 1}
	m := presence.New(id.Size)
	m.Set(1<<20, 1<<20)
	m.Set(3<<20+5, 1000)
	m.Set(3<<20+2000, 1)
	m.Set(5<<20+1, 76)
	f.Add(m.Append(nil, id), id.Size)
	f.Add(oldFile(id), id.Size)
	f.Add([]byte{}, int64(0))
	f.Fuzz(func(t *testing.T, data []byte, size int64) {
		if len(data) >= 40 {
			data = sealed(bytes.Clone(data))
		}
		id := presence.Identity{Digest: "d", Size: size, Inode: 1}
		m, err := presence.Parse(data, id)
		if err != nil {
			if !errors.Is(err, presence.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(m.Append(nil, id), data) {
			t.Fatal("what was read is not what is written again")
		}
		for i, r := range m.Runs() {
			if r.Empty() || r.Blocks() > presence.Run/presence.Block || int64(i)*presence.Run+r.Content() > size {
				t.Fatalf("run %d holds %d blocks, %d bytes of a blob of %d", i, r.Blocks(), r.Content(), size)
			}
		}
	})
}

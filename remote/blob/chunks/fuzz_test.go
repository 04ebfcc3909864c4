package chunks_test

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
)

// FuzzTable opens any bytes as a table. One that is accepted has leaves that
// follow each other and end where it says, and verifies nothing but what it was
// made from.
func FuzzTable(f *testing.F) {
	data := random(5000)
	for _, fanOut := range []int{1, 3, 0, chunks.MaxFanOut} {
		table, _ := detached(f, data, 700, fanOut)
		f.Add(table, data)
		f.Add(table[:len(table)-34], data)
	}
	empty, _ := detached(f, nil, 1, 0)
	f.Add(empty, []byte{})
	f.Fuzz(func(t *testing.T, raw, data []byte) {
		table, err := chunks.Open(t.Context(), blobtest.Bytes(raw), "")
		if err != nil {
			return
		}
		end, n, whole := int64(0), int64(0), true
		for l, err := range table.Leaves(t.Context()) {
			if err != nil {
				whole = false
				break
			}
			if l.Offset != end || l.Number != n || l.Length < 1 || l.Length > chunks.MaxLeaf {
				t.Fatalf("leaf %+v after %d leaves to %d", l, n, end)
			}
			end, n = end+int64(l.Length), n+1
		}
		if whole && (end != table.Covered() || n != table.Len()) {
			t.Fatalf("%d leaves to %d of %d to %d", n, end, table.Len(), table.Covered())
		}
		readHostile(t, raw, data, table)
	})
}

// readHostile reads data through a table that is taken at its word: what is
// returned has the hashes that the table says.
func readHostile(t *testing.T, raw, data []byte, table *chunks.Table) {
	ref := chunks.Ref{Root: table.Root(), Size: int64(len(raw))}
	v := chunks.Verify(blobtest.Bytes(data), ref, blobtest.Bytes(raw), nil)
	p := make([]byte, len(data))
	n, _ := v.ReadAt(t.Context(), p, 0)
	if !bytes.Equal(p[:n], data[:n]) || !bytes.Equal(p[n:], make([]byte, len(p)-n)) {
		t.Fatalf("read %d bytes, which are not those of the blob", n)
	}
	for l, err := range table.Leaves(t.Context()) {
		if err != nil || l.Offset >= int64(n) {
			return
		}
		if end := l.Offset + int64(l.Length); end > int64(n) || sha256.Sum256(p[l.Offset:end]) != l.SHA256 {
			t.Fatalf("read %d bytes, and leaf %d to %d is wrong", n, l.Number, end)
		}
	}
}

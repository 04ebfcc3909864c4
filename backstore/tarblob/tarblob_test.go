package tarblob_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore/tarblob"
	"github.com/reprise-containers/reprise/remote/blob"
)

const vectors = "../testdata/vectors"

// memory is a blob in memory; it records what it is asked to discard.
type memory struct {
	data      []byte
	discarded []string
}

func (m *memory) Size() int64               { return int64(len(m.data)) }
func (m *memory) Present(off, n int64) bool { return off >= 1536 }
func (m *memory) Discard(off, n int64)      { m.discarded = append(m.discarded, fmt.Sprint(off, "+", n)) }
func (m *memory) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(m.data).ReadAt(p, off)
}

// file is an empty file in memory.
type file struct{ bytes.Buffer }

func (f *file) WriteAt(p []byte, off int64) (int, error) { return copy(f.Bytes()[off:], p), nil }

func open(t *testing.T, data []byte) blob.ReaderAt {
	t.Helper()
	r, err := tarblob.Open(t.Context(), &memory{data: data})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readAll(t *testing.T, r blob.ReaderAt) []byte {
	t.Helper()
	b := make([]byte, r.Size())
	if n, err := r.ReadAt(t.Context(), b, 0); n != len(b) {
		t.Fatalf("reading %d bytes: %d, %v", len(b), n, err)
	}
	return b
}

// TestEqualsUpstream takes payloads out of upstream's archives and wraps them
// again, in both ways; the archives must be the same bytes.
func TestEqualsUpstream(t *testing.T) {
	paths, err := filepath.Glob(vectors + "/*/*[0-9a-z].tar")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, path := range paths {
		name := filepath.Base(path)
		if strings.HasPrefix(name, "tar-") || name == "sparse.tar" || strings.HasSuffix(name, ".registry.tar") {
			continue
		}
		checked++
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		payload := readAll(t, open(t, want))
		var streamed bytes.Buffer
		w, err := tarblob.NewWriter(&streamed, int64(len(payload)))
		checkWrap(t, name+" streamed", w, err, payload, &streamed, want)
		var f file
		w, err = tarblob.NewUnsizedWriter(&f)
		checkWrap(t, name+" unsized", w, err, payload, &f.Buffer, want)
	}
	if checked < 10 {
		t.Errorf("only %d archives", checked)
	}
}

func checkWrap(t *testing.T, name string, w *tarblob.Writer, err error, payload []byte, out *bytes.Buffer, want []byte) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(payload); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("%s: second Close: %v", name, err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%s: archive differs from upstream's", name)
	}
}

// TestUnfinished: before Close nobody takes the file for an archive.
func TestUnfinished(t *testing.T) {
	var f file
	w, err := tarblob.NewUnsizedWriter(&f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("payload")); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := tarblob.Locate(f.Bytes(), int64(f.Len())); ok || err != nil {
		t.Errorf("unfinished archive was recognised: %v", err)
	}
	if _, err := w.WriteAt([]byte("PAY"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt([]byte("x"), 7); err == nil {
		t.Error("wrote after the end with WriteAt")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, open(t, f.Bytes())); string(got) != "PAYload" {
		t.Errorf("payload is %q", got)
	}
	tr := tar.NewReader(&f)
	if h, err := tr.Next(); err != nil || h.Name != "overlaybd.commit" || h.Size != 7 {
		t.Errorf("archive/tar sees %+v, %v", h, err)
	}
	if b, err := io.ReadAll(tr); err != nil || string(b) != "PAYload" {
		t.Errorf("archive/tar reads %q, %v", b, err)
	}
}

// TestSized: a Writer with a size takes exactly that.
func TestSized(t *testing.T) {
	w, err := tarblob.NewWriter(io.Discard, 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("long")); err == nil {
		t.Error("more than the size was written")
	}
	if _, err := w.WriteAt([]byte("l"), 0); err == nil {
		t.Error("overwrote a stream")
	}
	if err := w.Close(); err == nil {
		t.Error("closed before the size was reached")
	}
	if _, err := tarblob.NewWriter(io.Discard, -1); err == nil {
		t.Error("negative size was accepted")
	}
}

// TestPlainUstar reads what archive/tar writes, in the formats it has.
func TestPlainUstar(t *testing.T) {
	for format, want := range map[tar.Format]int64{tar.FormatUSTAR: 512, tar.FormatPAX: 1536, tar.FormatGNU: 0} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		h := &tar.Header{Name: "overlaybd.commit", Mode: 0o444, Size: 5, Format: format}
		if format == tar.FormatPAX {
			h.PAXRecords = map[string]string{"REPRISE.x": "y"}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		at, ok, err := tarblob.Locate(b.Bytes(), int64(b.Len()))
		switch {
		case format == tar.FormatPAX:
			if err == nil { // archive/tar writes no size record for small files
				t.Errorf("%v: no error for a pax header without a size", format)
			}
		case ok != (want != 0) || at.Offset != want || err != nil:
			t.Errorf("%v: %v %v %v", format, at, ok, err)
		case ok:
			if got := readAll(t, open(t, b.Bytes())); string(got) != "hello" {
				t.Errorf("%v: payload is %q", format, got)
			}
		}
	}
}

// TestForwarding: a payload passes optional abilities down, shifted, and ends
// where it must.
func TestForwarding(t *testing.T) {
	var b bytes.Buffer
	w, err := tarblob.NewWriter(&b, 4)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("data")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	m := &memory{data: b.Bytes()}
	r, err := tarblob.Open(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if !blob.Present(r, 0, 4) || blob.Present(r, -1, 4) {
		t.Error("presence is not shifted")
	}
	if !blob.Discard(r, 1, 2) || len(m.discarded) != 1 || m.discarded[0] != "1537+2" {
		t.Errorf("discarded %q", m.discarded)
	}
	p := make([]byte, 10)
	if n, err := r.ReadAt(t.Context(), p, 2); n != 2 || err != io.EOF || string(p[:n]) != "ta" {
		t.Errorf("read past the end: %d, %v, %q", n, err, p[:n])
	}
	if n, err := r.ReadAt(t.Context(), p, 4); n != 0 || err != io.EOF {
		t.Errorf("read at the end: %d, %v", n, err)
	}
	if _, err := r.ReadAt(t.Context(), p, -1); err == nil {
		t.Error("read at a negative offset")
	}
}

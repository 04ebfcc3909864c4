package check_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/cmd/internal/check"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// withChunks returns a vector with its chunk table.
func withChunks(t *testing.T, name string) ([]byte, chunks.Ref) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blob")
	data := readFile(t, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ref, _, _, err := backstore.AppendChunks(t.Context(), f, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if data, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	return data, ref
}

func annotated(data []byte, ref chunks.Ref) memory {
	m := newMemory(data, digest.FromBytes(data))
	m.desc.Annotations = labels.WithChunks(ref)
	return m
}

func TestIntactChunkTables(t *testing.T) {
	for _, name := range []string{
		"small-chain3/L0.lz4-4k.tar", "small-chain3/L0.zstd-64k.tar", "small-chain3/L0.lz4-4k.registry.tar",
		"corrupt/tar-plain-ustar.tar",
	} {
		data, ref := withChunks(t, name)
		for _, ref := range []chunks.Ref{{}, ref} {
			r := run(t, image(annotated(data, ref)))
			if r.Errors+r.Warnings != 0 || r.Layers[0].Chunks == 0 {
				t.Errorf("%s: %+v", name, r)
			}
		}
	}
}

// TestDamagedChunks damages covered bytes, and tells which leaf they are in.
func TestDamagedChunks(t *testing.T) {
	intact, ref := withChunks(t, "small-chain3/L0.lz4-4k.tar")
	for _, at := range []int64{1000, 20_000, ref.Offset - 513} {
		data := slices.Clone(intact)
		data[at] ^= 1
		r := run(t, image(annotated(data, ref)))
		found := 0
		for _, p := range r.Layers[0].Problems {
			if p.Kind == check.Chunks {
				found++
				if at < p.Place.Offset || at >= p.Place.Offset+p.Place.Length {
					t.Errorf("damage at %d: %s", at, p)
				}
			}
		}
		if found != 1 {
			t.Errorf("damage at %d: %+v", at, r.Layers[0].Problems)
		}
	}
}

// TestDamagedChunkTable damages the table in all its parts.
func TestDamagedChunkTable(t *testing.T) {
	intact, ref := withChunks(t, "small-chain3/L0.lz4-4k.tar")
	for _, at := range []int64{0, 20, 24, 32, 40, 50, ref.Size - 40, ref.Size - 1} {
		data := slices.Clone(intact)
		data[ref.Offset+at] ^= 1
		for _, m := range []memory{annotated(data, ref), newMemory(data, "")} {
			if k := kinds(run(t, image(m)), 0); !slices.Contains(k, check.Chunks) {
				t.Errorf("byte %d of the table: found %v", at, k)
			}
		}
	}
}

// TestChunkAnnotations has annotations that do not fit the blob.
func TestChunkAnnotations(t *testing.T) {
	data, ref := withChunks(t, "small-chain3/L0.lz4-4k.tar")
	plain := readFile(t, "small-chain3/L0.lz4-4k.tar")
	set := func(key, value string) memory {
		m := annotated(data, ref)
		m.desc.Annotations = maps.Clone(m.desc.Annotations)
		m.desc.Annotations[key] = value
		return m
	}
	incomplete := annotated(data, ref)
	delete(incomplete.desc.Annotations, labels.ChunksSize)
	for want, m := range map[string]memory{
		"the annotation says":         set(labels.ChunksRoot, digest.FromString("x").String()),
		"the archive has one of":      set(labels.ChunksOffset, "2048"),
		"does not lie in a blob":      set(labels.ChunksSize, "100000000"),
		"is not a digest":             set(labels.ChunksRoot, "beef"),
		"but the archive has none":    annotated(plain, chunks.Ref{Root: ref.Root, Offset: 4096, Size: 1000}),
		"missing beside the other tw": incomplete,
	} {
		r := run(t, image(m))
		found := false
		for _, p := range r.Layers[0].Problems {
			found = found || strings.Contains(p.Text, want)
		}
		if !found {
			t.Errorf("%q is not in %+v", want, r.Layers[0].Problems)
		}
	}
}

// TestFarBehindChunkTable has a blob that goes on behind its table for longer than
// readers allow: what is attached is refused, so it must not check as clean.
func TestFarBehindChunkTable(t *testing.T) {
	data, ref := withChunks(t, "small-chain3/L0.lz4-4k.tar")
	most := append(slices.Clone(data), make([]byte, 64<<10-(int64(len(data))-ref.Offset-ref.Size))...)
	if r := run(t, image(annotated(most, ref))); r.Errors+r.Warnings != 0 {
		t.Errorf("as much as is allowed: %+v", r)
	}
	r := run(t, image(annotated(append(most, 0), ref)))
	if k := kinds(r, 0); !slices.Equal(k, []check.Kind{check.Descriptor}) || !strings.Contains(r.Layers[0].Problems[0].Text, "lie behind its chunk table") {
		t.Errorf("one byte more: %+v", r.Layers[0].Problems)
	}
}

// TestChunksOfUnreadableBytes goes on behind what can't be read.
func TestChunksOfUnreadableBytes(t *testing.T) {
	data, ref := withChunks(t, "small-chain3/L0.lz4-4k.tar")
	m := hole{annotated(data, ref), int64(len(data)) / 2}
	if k := kinds(run(t, image(m)), 0); slices.Contains(k, check.Chunks) || !slices.Contains(k, check.Read) {
		t.Errorf("found %v", k)
	}
}

// hole is a blob of which large reads fail that touch one place.
type hole struct {
	memory
	at int64
}

func (h hole) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if h.at >= off && h.at < off+int64(len(p)) {
		return 0, errGone
	}
	return h.memory.ReadAt(ctx, p, off)
}

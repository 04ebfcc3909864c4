package chunks_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
)

// twoHosts is a blob that has its bytes before and behind at from two hosts, and
// one byte of them wrong.
type twoHosts struct {
	blob.Blob
	at, wrong int64
}

func (h twoHosts) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := h.Blob.ReadAt(ctx, p, off)
	if at := h.wrong - off; at >= 0 && at < int64(n) {
		p[at] ^= 1
	}
	o := blob.OriginsOf(ctx)
	first := int(min(int64(n), max(h.at-off, 0)))
	o.Served(off, first, "http://one")
	o.Served(off+int64(first), n-first, "http://two")
	return n, err
}

// blamed counts what an Observer is told, by origin.
type blamed struct {
	mu sync.Mutex
	by map[string]int
}

func (b *blamed) VerifyFailed(_ digest.Digest, _, _, _ int64, origin string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.by[origin]++
}

// TestVerifyBlamesEach has a wrong chunk of which two hosts served a part, and
// chunks that one of them served: the observer is told one host at a time.
func TestVerifyBlamesEach(t *testing.T) {
	data := random(100_000)
	table, ref := detached(t, data, 2000, 0)
	for _, c := range []struct {
		at, wrong int64
		want      []string
	}{
		{50_000, 20_000, []string{"http://one"}},
		{50_000, 70_000, []string{"http://two"}},
		{50_000, 50_000, []string{"http://one", "http://two"}},
	} {
		seen := blamed{by: map[string]int{}}
		v := chunks.Verify(twoHosts{blobtest.Bytes(data), c.at, c.wrong}, ref, blobtest.Bytes(table), &seen)
		_, err := v.ReadAt(t.Context(), make([]byte, len(data)), 0)
		var e *chunks.Error
		if !errors.As(err, &e) || !slices.Equal(e.Origins, c.want) {
			t.Errorf("wrong at %d: %v", c.wrong, err)
		}
		if got := slices.Sorted(maps.Keys(seen.by)); !slices.Equal(got, c.want) {
			t.Errorf("wrong at %d: %v was blamed, want %q", c.wrong, seen.by, c.want)
		}
	}
}

// remembering is a cache of whole reads.
type remembering struct {
	blob.Blob
	mu   sync.Mutex
	held map[[2]int64][]byte // by offset and length
}

func (r *remembering) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	key := [2]int64{off, int64(len(p))}
	r.mu.Lock()
	held, ok := r.held[key]
	r.mu.Unlock()
	if ok {
		return copy(p, held), nil
	}
	n, err := r.Blob.ReadAt(ctx, p, off)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[key] = slices.Clone(p[:n])
	return n, err
}

func (r *remembering) Discard(off, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.held, func(k [2]int64, _ []byte) bool { return k[0] < off+n && off < k[0]+k[1] })
}

// TestVerifyBlamesForTheTable has each byte of a few of a table wrong, which
// passes a cache on its way: who sent it is known, also for pages that came along
// with what was asked for.
func TestVerifyBlamesForTheTable(t *testing.T) {
	data := random(2 << 20)
	whole, ref := attached(t, data, 2000, 0)
	for _, at := range []int64{0, 50, ref.Size / 2, ref.Size - 1300, ref.Size - 1} {
		seen := blamed{by: map[string]int{}}
		below := twoHosts{blobtest.Bytes(whole), 0, ref.Offset + at}
		v := verify(below, ref, &seen, func(b blob.Blob) blob.Blob {
			return &remembering{Blob: b, held: map[[2]int64][]byte{}}
		})
		_, err := v.ReadAt(t.Context(), make([]byte, len(data)), 0)
		if err == nil || !strings.Contains(err.Error(), "chunk table") {
			t.Errorf("wrong at %d: %v", at, err)
		}
		if seen.by["http://two"] == 0 || len(seen.by) != 1 {
			t.Errorf("wrong at %d: %v was blamed", at, seen.by)
		}
	}
}

// TestVerifyStaged has wrong bytes of who is no host, in chunks of which a host
// serves the rest: the host is not blamed, and nothing that comes later from there
// is an error of a read.
func TestVerifyStaged(t *testing.T) {
	data := random(100_000)
	table, ref := detached(t, data, 2000, 0)
	seen := blamed{by: map[string]int{}}
	stage := blob.NewStage(twoHosts{blobtest.Bytes(data), 0, -1}, "trace")
	v := chunks.Verify(stage, ref, blobtest.Bytes(table), &seen)
	for off := int64(0); off < 50_000; off += 4000 {
		stage.Put(off, make([]byte, 1500)) // which is no whole chunk
		p := make([]byte, 4000)
		if _, err := v.ReadAt(t.Context(), p, off); err != nil || !slices.Equal(p, data[off:off+4000]) {
			t.Fatalf("reading at %d: %v", off, err)
		}
	}
	if seen.by["trace"] == 0 || len(seen.by) != 1 {
		t.Errorf("%v was blamed", seen.by)
	}
}

// TestVerifyStagedAndHost has bytes that are wrong wherever they come from: it is
// the host's fault in the end.
func TestVerifyStagedAndHost(t *testing.T) {
	data := random(100_000)
	table, ref := detached(t, data, 2000, 0)
	seen := blamed{by: map[string]int{}}
	stage := blob.NewStage(twoHosts{blobtest.Bytes(data), 0, 10_500}, "trace")
	stage.Put(10_000, make([]byte, 2000))
	_, err := chunks.Verify(stage, ref, blobtest.Bytes(table), &seen).ReadAt(t.Context(), make([]byte, 100), 10_100)
	var e *chunks.Error
	if !errors.As(err, &e) || seen.by["trace"] != 1 || seen.by["http://two"] != 2 {
		t.Errorf("%v; %v was blamed", err, seen.by)
	}
}

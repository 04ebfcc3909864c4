package chunks_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
)

// random returns n bytes.
func random(n int) []byte {
	data := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(n), 7})
	_, _ = rng.Read(data)
	return data
}

// lengths yields lengths of leaves from 1 to most that sum up to n.
func lengths(n, most int) iter.Seq[int] {
	return func(yield func(int) bool) {
		rng := rand.New(rand.NewPCG(uint64(n), uint64(most)))
		for left := n; left > 0; {
			k := min(left, 1+rng.IntN(most))
			if !yield(k) {
				return
			}
			left -= k
		}
	}
}

// attached returns a blob of data, a tar header, its chunk table and zeros.
func attached(t testing.TB, data []byte, most, fanOut int) ([]byte, chunks.Ref) {
	t.Helper()
	data = slices.Concat(data, make([]byte, (512-len(data)%512)%512))
	table, root, err := chunks.Build(t.Context(), bytes.NewReader(data), lengths(len(data), most), fanOut)
	if err != nil {
		t.Fatal(err)
	}
	ref := chunks.Ref{Root: root, Offset: int64(len(data)) + 512, Size: int64(len(table))}
	return slices.Concat(data, make([]byte, 512), table, make([]byte, 1024)), ref
}

// detached returns the table of data and its reference.
func detached(t testing.TB, data []byte, most, fanOut int) ([]byte, chunks.Ref) {
	t.Helper()
	table, root, err := chunks.Build(t.Context(), bytes.NewReader(data), lengths(len(data), most), fanOut)
	if err != nil {
		t.Fatal(err)
	}
	return table, chunks.Ref{Root: root, Size: int64(len(table))}
}

// verify returns b verified, its table read from b through above, which sees
// the verified blob as a cache would.
func verify(b blob.Blob, ref chunks.Ref, o chunks.Observer, above func(blob.Blob) blob.Blob) blob.Blob {
	late := &late{Blob: b}
	v := chunks.Verify(b, ref, blob.Section(late, ref.Offset, ref.Size), o)
	late.Blob = above(v)
	return late.Blob
}

// late is a blob that is decided on later.
type late struct{ blob.Blob }

func (l *late) Discard(off, n int64) { blob.Discard(l.Blob, off, n) }

func straight(b blob.Blob) blob.Blob { return b }

// failures collects what an Observer is told.
type failures struct {
	mu  sync.Mutex
	all []string
}

func (f *failures) VerifyFailed(_ digest.Digest, leaf, off, n int64, origin string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, fmt.Sprintf("%d %d+%d %s", leaf, off, n, origin))
}

func TestVerifySuite(t *testing.T) {
	for _, most := range []int{100, 3000, chunks.MaxLeaf} {
		for _, fanOut := range []int{1, 0} {
			t.Run(fmt.Sprintf("leaf=%d/fan-out=%d", most, fanOut), func(t *testing.T) {
				blobtest.Run(t, func(t *testing.T, data []byte) blob.Blob {
					table, ref := detached(t, data, most, fanOut)
					return chunks.Verify(blobtest.Bytes(data), ref, blobtest.Bytes(table), nil)
				})
			})
		}
	}
	t.Run("attached", func(t *testing.T) {
		blobtest.Run(t, func(t *testing.T, data []byte) blob.Blob {
			whole, ref := attached(t, data, 2000, 0)
			b := verify(blobtest.Bytes(whole), ref, nil, blob.Coalesce)
			sized := blobtest.Bytes(whole[:len(data)]) // the suite wants what it gave
			return &cut{b, sized}
		})
	})
}

// cut is the start of a blob with the descriptor of that.
type cut struct {
	b blob.Blob
	blob.Blob
}

func (c *cut) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return blob.Section(c.b, 0, c.Size()).ReadAt(ctx, p, off)
}

// TestVerifyWidens compares what is read below with the leaves that reads touch,
// once the pages are held.
func TestVerifyWidens(t *testing.T) {
	data := random(200_000)
	table, ref := detached(t, data, 3000, 8)
	var ends []int64
	end := int64(0)
	for n := range lengths(len(data), 3000) {
		end += int64(n)
		ends = append(ends, end)
	}
	below := blobtest.NewFaulty(blobtest.Bytes(data))
	v := chunks.Verify(below, ref, blobtest.Bytes(table), nil)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		off := rng.Int64N(int64(len(data)))
		n := 1 + rng.IntN(min(len(data)-int(off), 20_000))
		p := make([]byte, n)
		for range 2 { // the second time, pages are held
			before := len(below.Reads())
			if k, err := v.ReadAt(t.Context(), p, off); k != n || (err != nil && err != io.EOF) || !bytes.Equal(p, data[off:off+int64(n)]) {
				t.Fatalf("read %d+%d: %d, %v", off, n, k, err)
			}
			i, found := slices.BinarySearch(ends, off+1)
			if found {
				i = slices.Index(ends, off+1)
			}
			from := int64(0)
			if i > 0 {
				from = ends[i-1]
			}
			j, _ := slices.BinarySearch(ends, off+int64(n))
			var got int64
			for _, r := range below.Reads()[before:] {
				got += int64(r.Len)
				if r.Off < from || r.Off+int64(r.Len) > ends[j] {
					t.Fatalf("read %d+%d: %d+%d was read, the leaves are %d to %d", off, n, r.Off, r.Len, from, ends[j])
				}
			}
			if got != ends[j]-from {
				t.Fatalf("read %d+%d: %d bytes were read, the leaves have %d", off, n, got, ends[j]-from)
			}
		}
	}
}

// TestVerifyCost counts reads: header, index and first page are one, the last
// pages another, any other page is read when it is needed and not again.
func TestVerifyCost(t *testing.T) {
	whole, ref := attached(t, random(1<<20), 4096, 0)
	below := blobtest.NewFaulty(blobtest.Bytes(whole))
	v := verify(below, ref, nil, straight)
	read := func(off int64, want ...string) {
		t.Helper()
		before := len(below.Reads())
		if _, err := v.ReadAt(t.Context(), make([]byte, 1), off); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range below.Reads()[before:] {
			kind := "data"
			if r.Off >= ref.Offset {
				kind = "table"
			}
			got = append(got, kind)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("reading at %d: %q, want %q", off, got, want)
		}
	}
	read(ref.Offset-512, "data") // the tar header is not covered
	read(0, "data", "table", "table")
	read(100, "data")
	read(ref.Offset-513, "data")
	read(500_000, "data", "data", "data", "table") // both edges of a leaf of unknown extent
	read(500_000, "data")
	read(0, "data")
}

var errFlaky = errors.New("flaky on purpose")

// TestVerifyKeepsProgress has reads break off; what is whole and right is
// delivered, the rest is zeros.
func TestVerifyKeepsProgress(t *testing.T) {
	data := random(100_000)
	table, ref := detached(t, data, 2000, 0)
	below := blobtest.NewFaulty(blobtest.Bytes(data))
	v := chunks.Verify(below, ref, blobtest.Bytes(table), nil)
	p := make([]byte, len(data))
	if _, err := v.ReadAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{0, 1, 1999, 50_000, len(data) - 1000} {
		for _, off := range []int{0, 777} {
			below.Script(blobtest.Fault{Err: errFlaky, Truncate: cut})
			p := bytes.Repeat([]byte{0xee}, len(data)-off)
			n, err := v.ReadAt(t.Context(), p, int64(off))
			if !errors.Is(err, errFlaky) || n > cut || cut-n > 2000+off {
				t.Errorf("cut at %d: %d bytes, %v", cut, n, err)
			}
			if !bytes.Equal(p[:n], data[off:off+n]) || !bytes.Equal(p[n:], make([]byte, len(p)-n)) {
				t.Errorf("cut at %d: delivered what was not verified", cut)
			}
		}
	}
	below.Script(blobtest.Fault{Truncate: 3000})
	r := blob.Retry(v, blob.RetryConfig{Base: 1, Max: 1, Attempts: 3})
	if _, err := r.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, data) {
		t.Errorf("with progress in every try: %v", err)
	}
}

// TestVerifyWrong damages the source for good, or for one read.
func TestVerifyWrong(t *testing.T) {
	data := random(300_000)
	table, ref := detached(t, data, 3000, 0)
	for _, count := range []int{1, 0} {
		below := blobtest.NewFaulty(blobtest.Bytes(data), blobtest.Fault{Corrupt: true, Off: 150_000, Len: 1, Count: count})
		var seen failures
		v := chunks.Verify(below, ref, blobtest.Bytes(table), &seen)
		p := bytes.Repeat([]byte{0xee}, 250_000)
		n, err := v.ReadAt(t.Context(), p, 10)
		if !bytes.Equal(p[:n], data[10:10+n]) || !bytes.Equal(p[n:], make([]byte, len(p)-n)) {
			t.Errorf("delivered what was not verified")
		}
		if len(seen.all) == 0 {
			t.Error("nothing was reported")
		}
		if count == 1 {
			if err != nil || n != len(p) {
				t.Errorf("wrong once: %d, %v", n, err)
			}
			continue
		}
		var e *chunks.Error
		if !errors.As(err, &e) || !blob.IsPermanent(err) {
			t.Fatalf("wrong for good: %v", err)
		}
		// All of the first read was wrong, the second healed what it did not touch.
		if e.Offset > 150_000 || e.Offset+e.Length <= 10 || int64(n) != max(0, e.Offset-10) {
			t.Errorf("error names %d+%d after %d bytes", e.Offset, e.Length, n)
		}
		if !strings.Contains(err.Error(), fmt.Sprintf("chunk %d", e.Leaf)) || !strings.Contains(err.Error(), string(v.Descriptor().Digest)) {
			t.Errorf("error reads %q", err)
		}
	}
}

// flipped is a blob with one bit of it flipped.
type flipped struct {
	blob.Blob
	bit int64
}

func (f flipped) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := f.Blob.ReadAt(ctx, p, off)
	if at := f.bit/8 - off; at >= 0 && at < int64(n) {
		p[at] ^= 1 << (f.bit % 8)
	}
	return n, err
}

// TestVerifyEveryBitOfTheTable flips each bit of a table once, attached and
// detached: reads return the right bytes or an error.
func TestVerifyEveryBitOfTheTable(t *testing.T) {
	data := random(4608)
	table, dref := detached(t, data, 1000, 3)
	whole, aref := attached(t, data, 1000, 3)
	if aref.Size != dref.Size {
		t.Fatal("the tables differ")
	}
	for bit := range aref.Size * 8 {
		var seen failures
		for _, b := range []blob.Blob{
			chunks.Verify(blobtest.Bytes(data), dref, flipped{blobtest.Bytes(table), bit}, &seen),
			verify(flipped{blobtest.Bytes(whole), aref.Offset*8 + bit}, aref, &seen, blob.Coalesce),
		} {
			p := make([]byte, len(data))
			n, err := b.ReadAt(t.Context(), p, 0)
			var e *chunks.Error
			if !errors.As(err, &e) || e.Leaf != -1 || !blob.IsPermanent(err) {
				t.Fatalf("bit %d: error %v", bit, err)
			}
			if n != 0 || !bytes.Equal(p, make([]byte, len(p))) {
				t.Fatalf("bit %d: %d bytes were delivered", bit, n)
			}
		}
		if len(seen.all) != 2*4 { // four tries each
			t.Fatalf("bit %d: reported %q", bit, seen.all)
		}
	}
}

// TestVerifyTableHeals has a cache above with a wrong copy of the table.
func TestVerifyTableHeals(t *testing.T) {
	whole, ref := attached(t, random(500_000), 2000, 0)
	for _, at := range []int64{0, 20, 50, ref.Size - 1} {
		cache := &forgetful{wrong: ref.Offset + at}
		v := verify(blobtest.Bytes(whole), ref, nil, func(b blob.Blob) blob.Blob {
			cache.Blob = b
			return cache
		})
		p := make([]byte, 500_000)
		if _, err := v.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, whole[:len(p)]) {
			t.Errorf("wrong at %d: %v", at, err)
		}
		if !cache.forgot {
			t.Errorf("wrong at %d: the cache was not asked to forget", at)
		}
	}
}

// forgetful is a cache whose copy is wrong at one place until it is told to
// forget that.
type forgetful struct {
	blob.Blob
	mu     sync.Mutex
	wrong  int64
	forgot bool
}

func (c *forgetful) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := c.Blob.ReadAt(ctx, p, off)
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.wrong - off; !c.forgot && at >= 0 && at < int64(n) {
		p[at] ^= 0x10
	}
	return n, err
}

func (c *forgetful) Discard(off, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgot = c.forgot || c.wrong >= off && c.wrong < off+n
}

// TestVerifyStraddling reads over the end of the covered bytes while others read
// on both sides, through Coalesce: nobody waits for himself.
func TestVerifyStraddling(t *testing.T) {
	whole, ref := attached(t, random(400_000), 900, 4)
	for range 20 {
		v := verify(blobtest.Bytes(whole), ref, nil, blob.Coalesce)
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				off := int64(i) * int64(len(whole)) / 20
				n := len(whole) - int(off)
				if i%2 == 1 {
					n = min(n, 5000)
				}
				p := make([]byte, n)
				if _, err := v.ReadAt(t.Context(), p, off); err != nil || !bytes.Equal(p, whole[off:off+int64(n)]) {
					t.Errorf("read %d+%d: %v", off, n, err)
				}
			})
		}
		wg.Wait()
	}
}

// TestVerifyRefuses has tables and references that are right in themselves but
// not for the blob.
func TestVerifyRefuses(t *testing.T) {
	whole, ref := attached(t, random(100_000), 2000, 0)
	other, oref := detached(t, random(50_000), 2000, 0)
	good := blobtest.Bytes(whole)
	section := func(r chunks.Ref) blob.ReaderAt { return blob.Section(good, r.Offset, r.Size) }
	shift := ref
	shift.Offset -= 512
	short := ref
	short.Size -= 34
	sha512 := ref
	sha512.Root = digest.Digest("sha512:" + strings.Repeat("0", 128))
	negative := ref
	negative.Offset = -512
	for name, b := range map[string]blob.Blob{
		"covers less":      chunks.Verify(good, oref, blobtest.Bytes(other), nil),
		"elsewhere":        chunks.Verify(good, shift, section(shift), nil),
		"short":            chunks.Verify(good, short, section(short), nil),
		"sha512":           chunks.Verify(good, sha512, section(sha512), nil),
		"negative":         chunks.Verify(good, negative, section(ref), nil),
		"size of another":  chunks.Verify(good, ref, blobtest.Bytes(other), nil),
		"far behind":       chunks.Verify(blobtest.Bytes(slices.Concat(whole, make([]byte, 64<<10))), ref, section(ref), nil),
		"behind the blob":  chunks.Verify(blobtest.Bytes(whole[:ref.Offset]), ref, section(ref), nil),
		"detached as such": chunks.Verify(good, chunks.Ref{Root: ref.Root, Size: ref.Size}, section(ref), nil),
	} {
		p := bytes.Repeat([]byte{0xee}, 1000)
		n, err := b.ReadAt(t.Context(), p, 0)
		if n != 0 || err == nil || !blob.IsPermanent(err) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
	if b := chunks.Verify(good, chunks.Ref{}, nil, nil); b != good {
		t.Error("without a table, the blob is another one")
	}
}

// TestLeaves compares what a table says with what went in.
func TestLeaves(t *testing.T) {
	data := random(700_000)
	for _, fanOut := range []int{1, 0, chunks.MaxFanOut} {
		raw, ref := detached(t, data, 900, fanOut)
		table, err := chunks.Open(t.Context(), blobtest.Bytes(raw), ref.Root)
		if err != nil {
			t.Fatal(err)
		}
		if fanOut == 0 {
			fanOut = chunks.DefaultFanOut
		}
		if table.Covered() != int64(len(data)) || table.Root() != ref.Root || table.FanOut() != fanOut {
			t.Errorf("table covers %d, root %s, fan-out %d", table.Covered(), table.Root(), table.FanOut())
		}
		next, stop := iter.Pull(lengths(len(data), 900))
		off, number := int64(0), int64(0)
		for l, err := range table.Leaves(t.Context()) {
			n, _ := next()
			if err != nil || l.Number != number || l.Offset != off || l.Length != n || l.SHA256 != sha256.Sum256(data[off:off+int64(n)]) {
				t.Fatalf("leaf %+v, %v, want %d at %d", l, err, n, off)
			}
			off, number = off+int64(n), number+1
		}
		stop()
		if number != table.Len() || off != table.Covered() {
			t.Errorf("%d leaves to %d", number, off)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	data := random(1000)
	for want, lengths := range map[string][]int{
		"go on after the last leaf": {500, 499},
		"unexpected EOF":            {500, 501},
		"leaf 1 of 0 bytes":         {500, 0, 500},
		"leaf 0 of 65537 bytes":     {65537},
	} {
		_, _, err := chunks.Build(t.Context(), bytes.NewReader(data), slices.Values(lengths), 0)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("leaves %v: error %v, want %q", lengths, err, want)
		}
	}
	if _, _, err := chunks.Build(t.Context(), bytes.NewReader(data), slices.Values([]int{1000}), chunks.MaxFanOut+1); err == nil {
		t.Error("any fan-out will do")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := chunks.Build(ctx, bytes.NewReader(data), slices.Values([]int{1000}), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

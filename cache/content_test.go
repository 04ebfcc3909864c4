package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/cache/internal/disk/disktest"
)

func wholeBlobs(t *testing.T, cfg cache.Config) *cache.Cache {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = filepath.Join(t.TempDir(), "cache")
	}
	cfg.WholeBlobs = true
	c, err := cache.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func blobOf(size int, seed uint64) ([]byte, ocispec.Descriptor) {
	p := cachetest.Random(size, seed)
	return p, ocispec.Descriptor{MediaType: "application/x", Digest: digest.FromBytes(p), Size: int64(size)}
}

func hold(t *testing.T, c *cache.Cache, origin string, desc ocispec.Descriptor) *cache.Content {
	t.Helper()
	x, err := c.Hold(origin, desc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Release)
	return x
}

func readAll(x *cache.Content) ([]byte, error) {
	p := make([]byte, x.Descriptor().Size)
	_, err := x.ReadAt(p, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return p, err
}

// A content belongs to its origin until it is verified, and then to everybody.
func TestContentOrigins(t *testing.T) {
	c := wholeBlobs(t, cache.Config{})
	data, desc := blobOf(200_000, 1)
	a, b := hold(t, c, "a", desc), hold(t, c, "b", desc)
	if err := a.Store(t.Context(), data[:100], 0); err != nil {
		t.Fatal(err)
	}
	if held, until := a.Extent(0, desc.Size); !held || until != 100 {
		t.Errorf("a has %v up to %d", held, until)
	}
	none := hold(t, c, "c", desc)
	none.Release()
	if n := c.Stats().Blobs; n != 2 {
		t.Errorf("%d blobs, where 2 are held", n)
	}
	if held, _ := b.Extent(0, desc.Size); held {
		t.Error("b has what came from a")
	}
	if _, ok := c.Find("b", desc.Digest); ok {
		t.Error("there is something from b")
	}
	if err := a.MarkVerified(); !errors.Is(err, cache.ErrNotHeld) {
		t.Errorf("an incomplete content is marked: %v", err)
	}
	if err := a.Store(t.Context(), data[50:], 50); err != nil {
		t.Fatal(err)
	}
	if err := a.Verify(t.Context(), nil); err != nil || !a.Verified() || a.Origin() != "" || !a.Complete() {
		t.Fatalf("Verify = %v", err)
	}
	after := hold(t, c, "b", desc)
	if got, err := readAll(after); err != nil || !bytes.Equal(got, data) || !after.Verified() {
		t.Errorf("b does not have what was verified: %v", err)
	}
	// b, who is at it, finds that it is not needed any more.
	if err := b.Store(t.Context(), data, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.MarkVerified(); err != nil {
		t.Error(err)
	}
	if got, err := readAll(b); err != nil || !bytes.Equal(got, data) {
		t.Errorf("who holds a content of which there are two lost it: %v", err)
	}
	b.Release()
	if n := len(c.Blobs()); n != 1 {
		t.Errorf("%d blobs, want 1", n)
	}
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if x, ok := c.Find("", desc.Digest); !ok || !x.Verified() {
		t.Error("it is not found by its digest")
	} else {
		x.Release()
	}
}

// What is wrong is dropped, quarantined, and made anew.
func TestContentMismatch(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	c := wholeBlobs(t, cache.Config{Dir: dir})
	for i := range uint64(6) {
		data, desc := blobOf(10_000, 10+i)
		x := hold(t, c, "a", desc)
		wrong := bytes.Clone(data)
		wrong[9_999]++
		if err := x.Store(t.Context(), wrong, 0); err != nil {
			t.Fatal(err)
		}
		if err := x.Verify(t.Context(), nil); !errors.Is(err, cache.ErrMismatch) || x.Verified() {
			t.Fatalf("Verify = %v", err)
		}
		if err := x.Store(t.Context(), data, 0); !errors.Is(err, cache.ErrNotStored) {
			t.Errorf("storing into what was dropped: %v", err)
		}
		again := hold(t, c, "a", desc)
		if held, _ := again.Extent(0, desc.Size); held || again.ID() == x.ID() {
			t.Error("what was dropped is still there")
		}
		x.Release()
	}
	kept, err := os.ReadDir(filepath.Join(dir, "quarantine"))
	if err != nil || len(kept) != 4 {
		t.Errorf("%d in quarantine, want 4: %v", len(kept), err)
	}
	// What is in quarantine takes space, also after a start.
	if s := c.Stats(); s.Bytes < 4*10_000 || s.Bytes > 4*16<<10 {
		t.Errorf("%d bytes are accounted for", s.Bytes)
	}
	before := c.Stats().Bytes
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if s := wholeBlobs(t, cache.Config{Dir: dir}).Stats(); s.Bytes != before {
		t.Errorf("%d bytes after a start, %d before", s.Bytes, before)
	}
}

// Blobs are evicted as a whole, and not while they are in use. What is removed in
// use can be read on, and counts until it is released.
func TestContentEviction(t *testing.T) {
	c := wholeBlobs(t, cache.Config{MaxBytes: 500_000, Policy: "lru"})
	held := make(map[int]*cache.Content)
	var datas [][]byte
	for i := range 8 {
		data, desc := blobOf(100_000, 20+uint64(i))
		datas = append(datas, data)
		x := hold(t, c, "a", desc)
		if err := x.Store(t.Context(), data, 0); err != nil {
			t.Fatal(err)
		}
		if err := x.MarkVerified(); err != nil {
			t.Fatal(err)
		}
		if i < 2 {
			held[i] = x
		} else {
			x.Release()
		}
		if s := c.Stats(); s.Bytes > 500_000 {
			t.Fatalf("%d bytes of 500000", s.Bytes)
		}
	}
	for i, x := range held {
		if got, err := readAll(x); err != nil || !bytes.Equal(got, datas[i]) {
			t.Errorf("blob %d is in use and was evicted: %v", i, err)
		}
	}
	if c.Stats().Evictions == 0 {
		t.Fatal("nothing was evicted")
	}
	before := c.Stats().Bytes
	x := held[0]
	if ok, err := c.Remove(x.Descriptor().Digest); !ok || err != nil {
		t.Fatalf("Remove = %v, %v", ok, err)
	}
	if got, err := readAll(x); err != nil || !bytes.Equal(got, datas[0]) || c.Stats().Bytes != before {
		t.Errorf("removed in use: %v, %d bytes of %d", err, c.Stats().Bytes, before)
	}
	x.Release()
	if s := c.Stats(); s.Bytes >= before {
		t.Errorf("%d bytes after the release, %d before", s.Bytes, before)
	}
	if err := c.EvictTo(t.Context(), 0); err != nil || len(c.Blobs()) != 1 {
		t.Errorf("EvictTo = %v, %d blobs left, want the one in use", err, len(c.Blobs()))
	}
}

// The file can be sent while it grows, and after it is gone.
func TestContentOpen(t *testing.T) {
	c := wholeBlobs(t, cache.Config{})
	data, desc := blobOf(300_000, 40)
	x := hold(t, c, "a", desc)
	if _, err := x.Open(0); !errors.Is(err, cache.ErrNotHeld) {
		t.Errorf("Open of nothing = %v", err)
	}
	if err := x.Store(t.Context(), data[:150_000], 0); err != nil {
		t.Fatal(err)
	}
	f, err := x.Open(1000)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := x.Store(t.Context(), data[150_000:], 150_000); err != nil {
		t.Fatal(err)
	}
	if err := x.Drop(false); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, data[1000:]) {
		t.Errorf("read %d bytes: %v", len(got), err)
	}
}

// A start finds what was verified, also before the scan has come to it, and with
// its times.
func TestContentRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	c := wholeBlobs(t, cache.Config{Dir: dir})
	var datas [][]byte
	var descs []ocispec.Descriptor
	for i := range 50 {
		data, desc := blobOf(5000, 50+uint64(i))
		x := hold(t, c, "a", desc)
		if err := errors.Join(x.Store(t.Context(), data, 0), x.MarkVerified()); err != nil {
			t.Fatal(err)
		}
		x.Release()
		datas, descs = append(datas, data), append(descs, desc)
	}
	before := c.Blobs()[0]
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	d := wholeBlobs(t, cache.Config{Dir: dir, ScanInBackground: true})
	for i, desc := range descs {
		x, ok := d.Find("b", desc.Digest)
		if !ok {
			t.Fatalf("blob %d is not found", i)
		}
		if got, err := readAll(x); err != nil || !bytes.Equal(got, datas[i]) || !x.Verified() {
			t.Errorf("blob %d: %v", i, err)
		}
		x.Release()
	}
	for !d.Scanned() {
		time.Sleep(time.Millisecond)
	}
	for _, b := range d.Blobs() {
		if b.Key == before.Key && (!b.FetchedAt.Equal(before.FetchedAt) || !b.VerifiedAt.Equal(before.VerifiedAt)) {
			t.Errorf("after: %+v, before: %+v", b, before)
		}
	}
	if n := len(d.Blobs()); n != 50 {
		t.Errorf("%d blobs, want 50", n)
	}
}

// Sweep removes what should not be there, and nothing else.
func TestSweep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	c := wholeBlobs(t, cache.Config{Dir: dir})
	data, desc := blobOf(5000, 60)
	x := hold(t, c, "a", desc)
	lostData, lostDesc := blobOf(6000, 61)
	lost := hold(t, c, "a", lostDesc)
	if err := errors.Join(x.Store(t.Context(), data, 0), x.MarkVerified(),
		lost.Store(t.Context(), lostData, 0), lost.MarkVerified(), c.Sync(t.Context())); err != nil {
		t.Fatal(err)
	}
	lost.Release()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, orphan := blobOf(7000, 62)
	hex := orphan.Digest.Encoded()
	shard := filepath.Join(dir, "blobs", "sha256", hex[:2])
	if err := os.MkdirAll(shard, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Join(dir, "core.123"), filepath.Join(dir, "blobs", "notes.txt"),
		filepath.Join(shard, "README"), filepath.Join(shard, hex+".data")} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(shard, "link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	gone := lostDesc.Digest.Encoded()
	if err := os.Remove(filepath.Join(dir, "blobs", "sha256", gone[:2], gone+".data")); err != nil {
		t.Fatal(err)
	}
	young, err := c.Sweep(t.Context(), time.Hour)
	if err != nil || young.Orphans != 0 || young.Undesired != 1 || young.Empty != 1 { // links have no age
		t.Errorf("Sweep of young files = %+v, %v", young, err)
	}
	s, err := c.Sweep(t.Context(), 0)
	if err != nil || s.Orphans != 1 || s.Undesired != 3 || s.Empty != 0 || s.Bytes == 0 {
		t.Errorf("Sweep = %+v, %v", s, err)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
	if got, err := readAll(x); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the blob that is all right: %v", err)
	}
	if again, err := c.Sweep(t.Context(), 0); err != nil || again != (cache.Swept{}) {
		t.Errorf("Sweep again = %+v, %v", again, err)
	}
}

// A disk that fails or is full costs storing, and nothing that is there.
func TestContentFailingDisk(t *testing.T) {
	files := disktest.New(1 << 30)
	var broken atomic.Bool
	files.Fault = func(op disktest.Op) error {
		if broken.Load() && (op.Kind == "WriteAt" || op.Kind == "Open") {
			return syscall.ENOSPC
		}
		return nil
	}
	c, err := cache.OpenOn(cache.Config{WholeBlobs: true}, files)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	data, desc := blobOf(100_000, 70)
	x := hold(t, c, "a", desc)
	if err := x.Store(t.Context(), data[:50_000], 0); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	if err := x.Store(t.Context(), data[50_000:], 50_000); !errors.Is(err, cache.ErrNotStored) {
		t.Fatalf("Store on a full disk = %v", err)
	}
	if held, until := x.Extent(0, desc.Size); !held || until != 50_000 {
		t.Errorf("it has %v up to %d", held, until)
	}
	p := make([]byte, 50_000)
	if _, err := x.ReadAt(p, 0); err != nil || !bytes.Equal(p, data[:50_000]) {
		t.Errorf("what was there before: %v", err)
	}
	for name, bad := range map[string]ocispec.Descriptor{
		"no size": {Digest: desc.Digest}, "another size": {Digest: desc.Digest, Size: 1}, "no digest": {Size: 1},
	} {
		if x, err := c.Hold("a", bad); err == nil {
			x.Release()
			t.Errorf("%s is held", name)
		}
	}
}

// Many fill, verify, drop and evict the same few blobs.
func TestContentChurn(t *testing.T) {
	c := wholeBlobs(t, cache.Config{MaxBytes: 700_000, CheckpointEvery: 20 * time.Millisecond, MaxOpen: 4})
	const blobs = 12
	var datas [blobs][]byte
	var descs [blobs]ocispec.Descriptor
	for i := range datas {
		datas[i], descs[i] = blobOf(60_000+i*9_000, 80+uint64(i))
	}
	one := func(ctx context.Context, k int) error {
		i := k % blobs
		x, err := c.Hold(fmt.Sprint(k%3), descs[i])
		if err != nil {
			return err
		}
		defer x.Release()
		if err := x.Store(ctx, datas[i], 0); err != nil {
			if errors.Is(err, cache.ErrNotStored) {
				return nil
			}
			return err
		}
		if err := x.Verify(ctx, nil); err != nil && !errors.Is(err, cache.ErrNotHeld) {
			return err
		}
		if got, err := readAll(x); err != nil && !errors.Is(err, cache.ErrNotHeld) || err == nil && !bytes.Equal(got, datas[i]) {
			return fmt.Errorf("blob %d is wrong: %w", i, err)
		}
		switch k % 17 {
		case 0:
			return x.Drop(false)
		case 1:
			_, err = c.Remove(descs[i].Digest)
		case 2:
			_, err = c.Sweep(ctx, 0)
		case 3:
			err = c.Sync(ctx)
		}
		return err
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for k := range 150 {
				if err := one(t.Context(), g*31+k*7); err != nil {
					t.Errorf("step %d of %d: %v", k, g, err)
					return
				}
			}
		})
	}
	wg.Wait()
	// A checkpoint that is under way uses a blob too.
	for try := 0; ; try++ {
		if err := c.EvictTo(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		s := c.Stats()
		if s.Bytes == 0 && s.Blobs == 0 {
			break
		}
		if try == 500 {
			t.Fatalf("after everything is gone: %+v", s)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A process that is killed loses no more than what it stored last; after a power
// cut nothing is believed that was not durable.
func TestContentKilled(t *testing.T) {
	files := disktest.New(1 << 30)
	c, err := cache.OpenOn(cache.Config{WholeBlobs: true, CheckpointEvery: time.Hour}, files)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	data, desc := blobOf(6<<20, 90)
	x := hold(t, c, "a", desc)
	for off := 0; off < 5<<20; off += 64 << 10 {
		if err := x.Store(t.Context(), data[off:off+64<<10], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	killed, err := cache.OpenOn(cache.Config{WholeBlobs: true}, files.Kill())
	if err != nil {
		t.Fatal(err)
	}
	defer killed.Close()
	y, ok := killed.Find("a", desc.Digest)
	if !ok {
		t.Fatal("everything is lost")
	}
	defer y.Release()
	held, until := y.Extent(0, desc.Size)
	if !held || until < 4<<20 {
		t.Errorf("after a kill there is %v up to %d of %d", held, until, 5<<20)
	}
	p := make([]byte, until)
	if _, err := y.ReadAt(p, 0); err != nil || !bytes.Equal(p, data[:until]) {
		t.Errorf("what is left is wrong: %v", err)
	}
	cut, err := cache.OpenOn(cache.Config{WholeBlobs: true}, files.Crash(rand.New(rand.NewPCG(1, 1))))
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	if _, ok := cut.Find("a", desc.Digest); ok {
		t.Error("after a power cut there is something, although no checkpoint was made")
	}
}

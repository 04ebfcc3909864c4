package fill_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/fill"
)

// TestNoRoom has a cache that takes nothing, or some, of a blob. Everybody is served
// by their own source, from where they are, and a liar is still found out.
func TestNoRoom(t *testing.T) {
	data := random(4<<20, 30)
	lie := slices.Clone(data)
	lie[len(lie)-1] ^= 1
	for _, room := range []int64{16 << 10, 2 << 20} {
		for _, lying := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d lying %v", room, lying), func(t *testing.T) {
				r := newRig(t, quick, cache.Config{MaxBytes: room})
				sent := data
				if lying {
					sent = lie
				}
				up := newUpstream(sent)
				var group errgroup.Group
				for i := range 5 {
					group.Go(func() error {
						got, err := r.read(t.Context(), describe(data), sent, up.by(fmt.Sprint(i)), 0, int64(len(data)))
						switch {
						case lying && (!errors.Is(err, fill.ErrMismatch) || got > int64(len(data))-64<<10):
							return fmt.Errorf("a reader who was lied to got %d bytes and %w", got, err)
						case !lying && (err != nil || got != int64(len(data))):
							return fmt.Errorf("a reader got %d bytes and %w", got, err)
						}
						return nil
					})
				}
				group.Go(func() error {
					_, err := r.read(t.Context(), describe(data), sent, up.by("range"), 3<<20, 100_000)
					return err
				})
				if err := group.Wait(); err != nil {
					t.Fatal(err)
				}
				r.unverified(describe(data))
				if n := r.group.Stats().Direct; n == 0 {
					t.Error("nobody went past the cache")
				}
				// One for each, and one for what comes after what the range took.
				if n := len(up.requests()); n > 6+1 {
					t.Errorf("%d requests of 6 readers: %v", n, up.requests())
				}
			})
		}
	}
}

// TestDirectBreaks cuts the answers that go past the cache.
func TestDirectBreaks(t *testing.T) {
	data := random(1<<20, 31)
	r := newRig(t, quick, cache.Config{MaxBytes: 16 << 10})
	up := newUpstream(data)
	up.hook = func(_ context.Context, o *openedBody) error {
		if o.pos-o.off >= 200_000 {
			return errCut
		}
		return nil
	}
	if err := r.check(t.Context(), data, up.by("a"), 0, int64(len(data))); err != nil {
		t.Error(err)
	}
	if err := r.check(t.Context(), data, up.by("a"), 300_000, 500_000); err != nil {
		t.Error(err)
	}
	gone := errors.New("gone")
	if _, err := r.read(t.Context(), describe(data), data, up.refusing("b", gone), 0, int64(len(data))); !errors.Is(err, gone) {
		t.Errorf("a source that is gone: %v", err)
	}
}

// TestFullDisk fills a real file system half-way through a blob.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	data := random(8<<20, 32)
	r := newRig(t, quick, cache.Config{Dir: filepath.Join(dir, "cache")})
	r.fullDisk = true
	up := newUpstream(data)
	var group errgroup.Group
	for i := range 5 {
		group.Go(func() error { return r.check(t.Context(), data, up.by(fmt.Sprint(i)), 0, int64(len(data))) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	r.unverified(describe(data))
	if n := r.group.Stats().Direct; n == 0 {
		t.Error("nobody went past the cache")
	}
}

// TestRemoved takes the content away while it is fetched and read.
func TestRemoved(t *testing.T) {
	data := random(4<<20, 33)
	r := newRig(t, quick, cache.Config{})
	up := newUpstream(data)
	removed := make(chan struct{})
	up.hook = func(ctx context.Context, o *openedBody) error {
		if o.pos < 2<<20 {
			return nil
		}
		select {
		case <-removed:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	var group errgroup.Group
	for i := range 5 {
		group.Go(func() error { return r.check(t.Context(), data, up.by(fmt.Sprint(i)), 0, int64(len(data))) })
	}
	eventually(t, "they wait", func() bool { return r.group.Stats().Waiting >= 5 && up.bytes() >= 2<<20 })
	for _, b := range r.cache.Blobs() {
		if ok, err := r.cache.Remove(b.Key); !ok || err != nil {
			t.Errorf("removing: %v, %v", ok, err)
		}
	}
	close(removed)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	// The next one begins anew, and it stays.
	if err := r.check(t.Context(), data, up.by("next"), 0, int64(len(data))); err != nil {
		t.Fatal(err)
	}
	r.settle(data)
}

// TestRemovedVerified takes away what is complete while it is read.
func TestRemovedVerified(t *testing.T) {
	data := random(4<<20, 34)
	r := newRig(t, quick, cache.Config{})
	up := newUpstream(data)
	if err := r.check(t.Context(), data, up.by("a"), 0, int64(len(data))); err != nil {
		t.Fatal(err)
	}
	r.settle(data)
	rd, done := r.reader(t.Context(), describe(data), up.by("b"), 0, int64(len(data)))
	defer done()
	if _, err := rd.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	for _, b := range r.cache.Blobs() {
		if _, err := r.cache.Remove(b.Key); err != nil {
			t.Error(err)
		}
	}
	w := &against{want: data[10:]}
	if _, err := rd.WriteTo(w); err != nil || w.got != int64(len(data))-10 {
		t.Errorf("%d bytes after the removal: %v", w.got, err)
	}
	up.cheap(t, int64(len(data)))
}

// TestEvicted reads more blobs than there is room for, many at a time.
func TestEvicted(t *testing.T) {
	const blobs = 12
	r := newRig(t, quick, cache.Config{MaxBytes: 4 << 20})
	var all [blobs][]byte
	var ups [blobs]*upstream
	for i := range all {
		all[i] = random(1<<20-i*1000, uint64(40+i))
		ups[i] = newUpstream(all[i])
	}
	var group errgroup.Group
	for w := range 6 {
		group.Go(func() error {
			for i := range 3 * blobs {
				k := (i*(w+1) + w) % blobs
				if err := r.check(t.Context(), all[k], ups[k].by("a"), 0, int64(len(all[k]))); err != nil {
					return err
				}
				if err := r.check(t.Context(), all[k], ups[k].by("a"), 500_000, 1000); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestCacheClosed closes the cache under readers: they go on from their sources.
func TestCacheClosed(t *testing.T) {
	data := random(1<<20, 60)
	r := newRig(t, quick, cache.Config{})
	up := newUpstream(data)
	if err := r.check(t.Context(), data, up.by("a"), 0, 600_000); err != nil {
		t.Fatal(err)
	}
	rd, done := r.reader(t.Context(), describe(data), up.by("b"), 1000, 700_000)
	defer done()
	if _, err := rd.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := r.cache.Close(); err != nil {
		t.Fatal(err)
	}
	w := &against{want: data[1010:701_000]}
	if _, err := rd.WriteTo(w); err == nil && w.got != 699_990 {
		t.Errorf("%d bytes without an error", w.got)
	} else if err != nil {
		t.Log(err)
	}
}

// TestFileCut has somebody cut the file that the bytes are in.
func TestFileCut(t *testing.T) {
	data := random(1<<20, 61)
	dir := t.TempDir()
	r := newRig(t, quick, cache.Config{Dir: dir})
	up := newUpstream(data)
	if err := r.check(t.Context(), data, up.by("a"), 0, 600_000); err != nil {
		t.Fatal(err)
	}
	cutFile(t, dir, int64(len(data)))
	for i := range 2 {
		rd, done := r.reader(t.Context(), describe(data), up.by("b"), 0, int64(len(data)))
		w := &against{want: data}
		_, err := rd.WriteTo(w)
		done()
		// Who was sent a part of what is lost now may not know any more whether
		// that was right.
		if (err == nil || i > 0) && w.got != int64(len(data)) {
			t.Errorf("reader %d: %d bytes, %v", i, w.got, err)
		}
	}
	if err := r.check(t.Context(), data, up.by("c"), 0, int64(len(data))); err != nil {
		t.Error(err)
	}
}

// cutFile cuts the one file under dir that has size bytes.
func cutFile(t *testing.T, dir string, size int64) {
	t.Helper()
	cut := 0
	err := filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		if err == nil && info.Size() == size {
			cut++
			return os.Truncate(name, size/3)
		}
		return err
	})
	if err != nil || cut != 1 {
		t.Fatalf("cut %d files: %v", cut, err)
	}
}

// TestVerifiedCut has a file cut of which the content was right, and one who lies be
// asked for the rest: that it was right says nothing of what comes now.
func TestVerifiedCut(t *testing.T) {
	const size = 1 << 20
	data := random(size, 62)
	lie := slices.Clone(data)
	lie[size-100] ^= 1
	for _, held := range []bool{false, true} {
		t.Run(fmt.Sprintf("held %v", held), func(t *testing.T) {
			dir := t.TempDir()
			r := newRig(t, quick, cache.Config{Dir: dir})
			if err := r.check(t.Context(), data, newUpstream(data).by("a"), 0, size); err != nil {
				t.Fatal(err)
			}
			r.settle(data)
			if held {
				x := r.hold(describe(data))
				defer x.Release()
			}
			cutFile(t, dir, size)
			for i := range 4 {
				got, err := r.read(t.Context(), describe(data), lie, newUpstream(lie).by("b"), 0, size)
				if err == nil || got > size-64<<10 {
					t.Errorf("reader %d: %d bytes of a lie, %v", i, got, err)
				}
			}
			for i := range 2 {
				if err := r.check(t.Context(), data, newUpstream(data).by("c"), 0, size); err != nil {
					t.Errorf("reader %d: %v", i, err)
				}
			}
			// The cache may take nothing for a while: it takes that for a failing disk.
		})
	}
}

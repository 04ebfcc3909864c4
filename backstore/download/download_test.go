package download_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/download"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

const mib = 1 << 20

// Every layer arrives in its directory. One that two images share is read once,
// also if they keep it in different directories.
func TestDownload(t *testing.T) {
	s := newSite(t)
	base, app, other := content(3*mib+17, 1), content(100, 2), content(mib, 3)
	shared, elsewhere := s.layer("base", base), s.layer("base of another namespace", base)
	top, next := s.layer("app", app), s.layer("other", other)
	local := backstore.Layer{File: filepath.Join(s.root, "unpacked"), Dir: s.root}
	s.run(download.Config{Delay: time.Minute, Images: 2}, func(d *download.Downloader) {
		s.attach("1", local, shared, top)
		s.attach("2", elsewhere, next)
		s.attach("3", shared)
		after(59 * time.Second)
		if said := s.said(); len(said) > 0 || s.readsOf(shared) > 0 {
			t.Errorf("before its time: %v, %d bytes read", said, s.readsOf(shared))
		}
		after(time.Minute)
		s.has(shared, base)
		s.has(elsewhere, base)
		s.has(top, app)
		s.has(next, other)
		for _, l := range []backstore.Layer{shared, top, next} {
			if n := s.readsOf(l); int64(n) != l.Size {
				t.Errorf("%d bytes of %d were read", n, l.Size)
			}
		}
		for id, img := range s.Images() {
			for _, l := range img.Layers {
				if l.Remote() {
					t.Errorf("image %s still reads %s from its registry", id, l.Digest)
				}
			}
		}
		want := download.Stats{Bytes: shared.Size + top.Size + next.Size, Layers: 3}
		if got := d.Stats(); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
}

// What an earlier daemon left is added to if it is a beginning of the blob. If
// it is not, as after a power failure, nobody is accused.
func TestResume(t *testing.T) {
	data := content(3*mib, 1)
	for name, c := range map[string]struct {
		left []byte
		read int
	}{
		"nothing":          {nil, 3 * mib},
		"a beginning":      {data[:2*mib+5], mib - 5},
		"all of it":        {data, 0},
		"zeros":            {make([]byte, 2*mib), mib + 3*mib},
		"all of it, wrong": {content(3*mib, 2), 3 * mib},
		"too much":         {content(4*mib, 1), 3 * mib},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			l := s.layer("layer", data)
			if err := os.WriteFile(filepath.Join(l.Dir, ".download"), c.left, 0o600); err != nil {
				t.Fatal(err)
			}
			s.run(download.Config{}, func(d *download.Downloader) {
				s.attach("1", l)
				after(time.Minute)
				s.has(l, data)
				if n := s.readsOf(l); n != c.read {
					t.Errorf("%d bytes were read, want %d", n, c.read)
				}
				if st := d.Stats(); st.Layers != 1 || st.Mismatches+st.Failures != 0 {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// A registry that delivers something else is reported, its bytes are dropped
// everywhere, and it is tried again, but not at once and ever less often.
func TestMismatch(t *testing.T) {
	s := newSite(t)
	data := content(2*mib, 1)
	l := s.layer("layer", data)
	b := s.blobs[l.Digest]
	b.Script(blobtest.Fault{Off: mib, Len: 1, Corrupt: true})
	s.run(download.Config{}, func(d *download.Downloader) {
		s.attach("1", l)
		after(5 * time.Second)
		s.holds(l)
		said := s.said()
		if len(said) != 1 || !strings.Contains(said[0], l.Digest.String()) || !strings.Contains(said[0], ref) ||
			!strings.Contains(said[0], "does not have the digest") {
			t.Errorf("said %q, want digest and reference", said)
		}
		if !s.discarded[l.Digest] {
			t.Error("the cache was not told to forget what is wrong")
		}
		if s.Images()["1"].Layers[0].File != "" {
			t.Error("the image reads from a file that was not verified")
		}
		after(24 * time.Hour)
		n := d.Stats().Mismatches
		if n < 20 || n > 60 {
			t.Errorf("%d tries in a day", n)
		}
		s.holds(l)
		b.Script()
		after(time.Hour)
		s.has(l, data)
		if st := d.Stats(); st.Layers != 1 || st.Mismatches != n || st.Failures != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// A registry that fails or hangs is left alone for a while, and the next image
// gets its turn. What had arrived is not read again.
func TestBadRegistry(t *testing.T) {
	s := newSite(t)
	data, other := content(3*mib, 1), content(mib, 2)
	l, next := s.layer("layer", data), s.layer("next", other)
	b := s.blobs[l.Digest]
	b.Script(blobtest.Fault{Off: 2 * mib, Len: mib, Hang: true})
	s.run(download.Config{}, func(d *download.Downloader) {
		s.attach("1", l)
		after(time.Second)
		s.attach("2", next)
		after(time.Second)
		s.holds(next) // there is one slot, and it hangs
		after(3 * time.Minute)
		s.has(next, other)
		s.holds(l, ".download")
		if st := d.Stats(); st.Failures == 0 || st.Mismatches != 0 {
			t.Errorf("%+v", st)
		}
		b.Script()
		before := s.readsOf(l)
		after(2 * time.Hour)
		s.has(l, data)
		if n := s.readsOf(l) - before; n > 2*mib {
			t.Errorf("%d bytes were read again", n)
		}
	})
}

// A full disk is said once, gets its space back and is tried again.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a small file system needs root")
	}
	s := newSite(t)
	data := content(2*mib, 1)
	l := s.layer("small disk", data)
	if err := unix.Mount("tmpfs", l.Dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Skipf("no tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(l.Dir, 0); err != nil {
			t.Error(err)
		}
	})
	hog := filepath.Join(l.Dir, "hog")
	fill := func(n int) {
		if err := os.WriteFile(hog, make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.run(download.Config{MinFree: mib / 2}, func(d *download.Downloader) {
		gate := make(chan struct{})
		s.blobs[l.Digest].Script(blobtest.Fault{Off: mib, Len: mib, Gate: gate})
		s.attach("1", l)
		after(time.Second)
		s.holds(l, ".download")
		fill(2 * mib) // half of the layer has arrived
		close(gate)
		after(time.Hour)
		s.holds(l, "hog")
		if said := s.said(); len(said) != 1 || !strings.Contains(said[0], "disk is full") {
			t.Errorf("said %q, want once that the disk is full", said)
		}
		if st := d.Stats(); st.Failures < 2 {
			t.Errorf("%+v, want several tries", st)
		}
		if err := os.Remove(hog); err != nil {
			t.Fatal(err)
		}
		after(2 * time.Hour)
		s.has(l, data)
	})
}

// An image that is detached and removed takes its download with it; one that is
// only detached goes on where it was.
func TestDetach(t *testing.T) {
	s := newSite(t)
	data := content(4*mib, 1)
	l := s.layer("layer", data)
	b := s.blobs[l.Digest]
	b.Script(blobtest.Fault{Off: 2 * mib, Len: mib, Hang: true})
	s.run(download.Config{}, func(d *download.Downloader) {
		s.attach("1", l)
		after(time.Second)
		s.detach("1")
		after(time.Second)
		s.holds(l, ".download")
		b.Script()
		before := s.readsOf(l)
		s.attach("1", l)
		after(time.Second)
		s.has(l, data)
		if n := s.readsOf(l) - before; n != 2*mib {
			t.Errorf("%d bytes were read after it was attached again", n)
		}

		gone := s.layer("gone", content(4*mib, 2))
		s.blobs[gone.Digest].Script(blobtest.Fault{Off: 2 * mib, Len: mib, Hang: true})
		s.attach("2", gone)
		after(time.Second)
		s.detach("2")
		if err := os.RemoveAll(gone.Dir); err != nil {
			t.Fatal(err)
		}
		after(24 * time.Hour)
		if _, err := os.Lstat(gone.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the directory came back: %v", err)
		}
		if st := d.Stats(); st.Failures+st.Mismatches > 0 {
			t.Errorf("%+v: detaching is no failure", st)
		}
	})
}

// An image that is detached and attached again is downloaded, also if that is so
// fast that only its worker saw it gone.
func TestAttachedAgain(t *testing.T) {
	s := newSite(t)
	data := content(mib, 1)
	l := s.layer("layer", data)
	s.blobs[l.Digest].Script(blobtest.Fault{Fail: true})
	s.run(download.Config{}, func(d *download.Downloader) {
		s.attach("1", l)
		after(3 * time.Second)
		if len(s.said()) != 1 {
			t.Fatalf("said %q, want one failure", s.said())
		}
		s.blobs[l.Digest].Script()
		s.mu.Lock()
		s.blink = "1"
		s.mu.Unlock()
		after(time.Hour)
		if s.blink != "" {
			t.Fatal("nobody looked")
		}
		s.has(l, data)
	})
}

// Nothing is fetched while somebody waits for the registry, or just did.
func TestIdle(t *testing.T) {
	s := newSite(t)
	data := content(mib, 1)
	l := s.layer("layer", data)
	s.run(download.Config{Idle: 2 * time.Second}, func(*download.Downloader) {
		s.busy(time.Minute)
		s.attach("1", l)
		after(61 * time.Second)
		if n := s.readsOf(l); n > 0 {
			t.Errorf("%d bytes were read on a busy link", n)
		}
		after(3 * time.Second)
		s.has(l, data)
	})
}

// The rates of one image and of all bound what is fetched.
func TestRates(t *testing.T) {
	s := newSite(t)
	var layers []backstore.Layer
	for i := range byte(3) {
		layers = append(layers, s.layer(string('a'+rune(i)), content(10*mib, i)))
	}
	s.run(download.Config{ImageRate: mib, TotalRate: 2 * mib, Images: 3}, func(d *download.Downloader) {
		s.attach("1", layers[0])
		after(8 * time.Second)
		if n := d.Stats().Bytes; n < 6*mib || n > 9*mib {
			t.Errorf("%d bytes in 8 seconds at 1 MiB/s", n)
		}
		after(5 * time.Second)
		s.attach("2", layers[1])
		s.attach("3", layers[2])
		after(5 * time.Second)
		if n := d.Stats().Bytes - 10*mib; n < 6*mib || n > 11*mib {
			t.Errorf("%d bytes in 5 seconds at 2 MiB/s", n)
		}
	})
}

// A file that is there, but that could not be used, is not downloaded again.
func TestUseFails(t *testing.T) {
	s := newSite(t)
	data := content(mib, 1)
	l := s.layer("layer", data)
	s.useErr = errors.New("too many open files")
	s.run(download.Config{}, func(d *download.Downloader) {
		s.attach("1", l)
		after(time.Second)
		s.has(l, data)
		s.change(func() { s.useErr = nil })
		after(time.Hour)
		if st := d.Stats(); st.Layers != 1 || st.Failures != 1 || s.readsOf(l) != mib {
			t.Errorf("%+v, %d bytes read", st, s.readsOf(l))
		}
	})
}

func TestValidate(t *testing.T) {
	if err := (download.Config{}).Validate(); err != nil {
		t.Error(err)
	}
	for _, c := range []download.Config{{Delay: -1}, {Idle: -1}, {ImageRate: -1}, {TotalRate: -1}, {Images: -1}, {MinFree: -1}} {
		if c.Validate() == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

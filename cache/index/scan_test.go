package index_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/index"
	"github.com/reprise-containers/reprise/cache/internal/disk"
	"github.com/reprise-containers/reprise/cache/internal/disk/disktest"
)

// openOn opens an index on files.
func openOn(t *testing.T, files disk.FS, cfg index.Config) *index.Index {
	t.Helper()
	i, err := index.OpenOn(files, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// scan has i read its folder.
func scan(t *testing.T, i *index.Index) {
	t.Helper()
	stop := run(t, i)
	for !i.Scanned() {
		time.Sleep(time.Millisecond)
	}
	stop()
}

// filled returns a file system with n links of version 1.
func filled(t *testing.T, n int) *disktest.FS {
	t.Helper()
	files := disktest.New(1 << 30)
	i := openOn(t, files, index.Config{})
	for k := range n {
		put(t, i, linkOf(k, 1))
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	return files
}

// pausing stops whoever has read a file before it learns what is in there.
type pausing struct {
	disk.FS
	read, goOn chan struct{}
}

func (p pausing) ReadFile(name string, limit int64) ([]byte, error) {
	data, err := p.FS.ReadFile(name, limit)
	p.read <- struct{}{}
	<-p.goOn
	return data, err
}

// Who has read a link's file before the link was removed does not bring it back.
func TestRemovedWhileRead(t *testing.T) {
	p := pausing{filled(t, 1), make(chan struct{}), make(chan struct{})}
	i := openOn(t, p, index.Config{})
	var wg sync.WaitGroup
	wg.Go(func() { i.Lookup(tag(0)) })
	<-p.read
	i.Remove(tag(0))
	if err := i.Flush(); err != nil {
		t.Fatal(err)
	}
	close(p.goOn)
	wg.Wait()
	if l, ok := i.Lookup(tag(0)); ok {
		t.Errorf("the removed link is there: %+v", l)
	}
	if i.Len() != 0 || len(i.To(linkOf(0, 1).Descriptor.Digest)) != 0 {
		t.Errorf("%d links", i.Len())
	}
}

// What changes while the folder is being read becomes durable meanwhile.
func TestFlushWhileScanning(t *testing.T) {
	files := filled(t, 5)
	goOn := make(chan struct{})
	files.Fault = func(op disktest.Op) error {
		if op.Kind == "ReadFile" {
			<-goOn
		}
		return nil
	}
	i := openOn(t, files, index.Config{FlushEvery: time.Millisecond})
	stop := run(t, i)
	put(t, i, linkOf(99, 7))
	for { // or the test runs into its limit
		left := openOn(t, files.Kill(), index.Config{})
		if l, ok := left.Lookup(tag(99)); ok && same(l, linkOf(99, 7)) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if i.Scanned() {
		t.Error("the scan was not held up")
	}
	close(goOn)
	for !i.Scanned() {
		time.Sleep(time.Millisecond)
	}
	stop()
	if i.Len() != 6 {
		t.Errorf("%d links, want 6", i.Len())
	}
}

// A folder that holds more links than there may be is cut down, on disk too.
func TestScanMaxLinks(t *testing.T) {
	files := filled(t, 60)
	i := openOn(t, files, index.Config{MaxLinks: 10})
	scan(t, i)
	if i.Len() != 10 {
		t.Errorf("%d links, want 10", i.Len())
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	j := openOn(t, files, index.Config{})
	scan(t, j)
	if j.Len() != 10 {
		t.Errorf("%d links after a restart, want 10", j.Len())
	}
}

// A file that can't be read now may be read later, and is not removed.
func TestUnreadable(t *testing.T) {
	files := filled(t, 3)
	var broken atomic.Bool
	broken.Store(true)
	file := tag(1).ID()
	files.Fault = func(op disktest.Op) error {
		if broken.Load() && op.Kind == "ReadFile" && strings.Contains(op.Name, file) {
			return syscall.EIO
		}
		return nil
	}
	i := openOn(t, files, index.Config{})
	scan(t, i)
	if i.Len() != 2 {
		t.Errorf("%d links, want 2", i.Len())
	}
	if s, err := i.Sweep(t.Context(), 0); err != nil || s != (index.Swept{}) {
		t.Errorf("Sweep of an unreadable file = %+v, %v", s, err)
	}
	broken.Store(false)
	if s, err := i.Sweep(t.Context(), 0); err != nil || s.Found != 1 {
		t.Errorf("Sweep = %+v, %v", s, err)
	}
	if l, ok := i.Lookup(tag(1)); !ok || !same(l, linkOf(1, 1)) {
		t.Errorf("Lookup = %+v, %v", l, ok)
	}
}

// A folder that can't be listed costs its links and not the others.
func TestUnlistable(t *testing.T) {
	files := filled(t, 50)
	shard := tag(0).ID()[:2]
	files.Fault = func(op disktest.Op) error {
		if op.Kind == "ReadDir" && op.Name == shard {
			return syscall.EIO
		}
		return nil
	}
	var told atomic.Int64
	i := openOn(t, files, index.Config{OnError: func(error) { told.Add(1) }})
	scan(t, i)
	if _, ok := i.Lookup(tag(0)); ok || i.Len() == 0 || told.Load() != 1 {
		t.Errorf("%d links, told %d times", i.Len(), told.Load())
	}
}

// A change is tried again until its name is durable.
func TestFailingSync(t *testing.T) {
	files := disktest.New(1 << 30)
	var broken atomic.Bool
	broken.Store(true)
	files.Fault = func(op disktest.Op) error {
		if broken.Load() && op.Kind == "SyncDir" {
			return syscall.EIO
		}
		return nil
	}
	i := openOn(t, files, index.Config{})
	put(t, i, linkOf(1, 1))
	if i.Flush() == nil {
		t.Error("Flush hides that a name is not durable")
	}
	broken.Store(false)
	if err := i.Flush(); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(20) { // each name is by itself the old or the new one
		left := openOn(t, files.Crash(rng(seed)), index.Config{})
		if _, ok := left.Lookup(tag(1)); !ok {
			t.Fatal("the link is lost by a power cut after Flush said that it is durable")
		}
	}
}

// The last use is on disk after Close, and in order, whatever a clock said.
func TestUseSurvives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "index")
	i := open(t, dir, index.Config{})
	past, future := linkOf(1, 0), linkOf(2, 0)
	past.LastUsed = time.Unix(1000, 0)
	future.LastUsed = time.Now().Add(24 * 365 * time.Hour)
	put(t, i, past)
	put(t, i, future)
	put(t, i, linkOf(3, 0))
	before := time.Now()
	i.Touch(tag(3))
	i.Touch(tag(4)) // there is none
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	j := open(t, dir, index.Config{})
	scan(t, j)
	defer j.Close()
	for n, ok := range map[int]func(time.Time) bool{
		1: past.LastUsed.Equal, 2: future.LastUsed.Equal, 3: func(at time.Time) bool { return !at.Before(before) },
	} {
		if l, found := j.Lookup(tag(n)); !found || !ok(l.LastUsed) {
			t.Errorf("link %d was last used %v", n, l.LastUsed)
		}
	}
}

// What the disk would not give back as it is, is refused.
func TestRefused(t *testing.T) {
	i := openOn(t, disktest.New(1<<30), index.Config{})
	for name, change := range map[string]func(*index.Link){
		"key":    func(l *index.Link) { l.Key.Reference = "v\xff" },
		"header": func(l *index.Link) { l.Header = map[string]string{"Link": "\xfe"} },
		"long":   func(l *index.Link) { l.Header = map[string]string{"Link": strings.Repeat("x", 70_000)} },
		"digest": func(l *index.Link) { l.Descriptor.Digest = "sha256:../../x" },
		"size":   func(l *index.Link) { l.Descriptor.Size = -1 },
		"time":   func(l *index.Link) { l.FetchedAt = time.Date(20_000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		l := linkOf(1, 1)
		change(&l)
		if err := i.Put(l); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if i.Len() != 0 {
		t.Errorf("%d links", i.Len())
	}
	if err := i.Flush(); err != nil {
		t.Error(err)
	}
	a, b := tag(1), tag(1)
	a.Reference, b.Reference = "\xff", "\xfe"
	if a.ID() == b.ID() {
		t.Error("two keys that are not text have the same ID")
	}
	a.Repository, a.Kind, b.Repository, b.Kind = "ab", "c", "a", "bc"
	if b.Reference = a.Reference; a.ID() == b.ID() {
		t.Error("two keys with the same bytes in a row have the same ID")
	}
}

// Whatever stands where a link's file or folder should be is not followed, and does
// not last.
func TestForeign(t *testing.T) {
	for _, at := range []string{"shard", "file"} {
		for kind, plant := range map[string]func(name, outside string) error{
			"link":   func(name, outside string) error { return os.Symlink(outside, name) },
			"pipe":   func(name, _ string) error { return syscall.Mkfifo(name, 0o600) },
			"folder": func(name, _ string) error { return os.MkdirAll(name, 0o700) },
			"long":   func(name, _ string) error { return os.WriteFile(name, make([]byte, 100_000), 0o600) },
		} {
			t.Run(at+" "+kind, func(t *testing.T) {
				dir, outside := filepath.Join(t.TempDir(), "index"), t.TempDir()
				keep := filepath.Join(outside, "keep")
				if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(keep, []byte("mine"), 0o600)); err != nil {
					t.Fatal(err)
				}
				name := filepath.Join(dir, tag(1).ID()[:2])
				if at == "file" {
					if err := os.Mkdir(name, 0o700); err != nil {
						t.Fatal(err)
					}
					name = filepath.Join(name, tag(1).ID()+".json")
				}
				if err := plant(name, outside); err != nil {
					t.Fatal(err)
				}
				i := open(t, dir, index.Config{})
				if _, ok := i.Lookup(tag(1)); ok {
					t.Error("it is a link")
				}
				put(t, i, linkOf(1, 1))
				_ = i.Flush() // may fail until it is swept
				scan(t, i)
				if _, err := i.Sweep(t.Context(), 0); err != nil {
					t.Error(err)
				}
				if err := i.Close(); err != nil {
					t.Fatal(err)
				}
				j := open(t, dir, index.Config{})
				defer j.Close()
				if l, ok := j.Lookup(tag(1)); !ok || !same(l, linkOf(1, 1)) {
					t.Errorf("the link was not saved: %+v, %v", l, ok)
				}
				left, err := os.ReadDir(outside)
				if data, err2 := os.ReadFile(keep); err != nil || err2 != nil || len(left) != 1 || string(data) != "mine" {
					t.Errorf("something was done outside: %v, %v, %v", left, err, err2)
				}
			})
		}
	}
}

// All methods may be called in parallel, and what they leave is what the disk has.
func TestParallel(t *testing.T) {
	files := disktest.New(1 << 30)
	i := openOn(t, files, index.Config{FlushEvery: time.Millisecond, MaxLinks: 40})
	stop := run(t, i)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rng := rng(uint64(w))
			for n := range 300 {
				k := rng.IntN(60)
				switch rng.IntN(8) {
				case 0, 1, 2:
					if err := i.Put(linkOf(k, n)); err != nil {
						t.Error(err)
					}
				case 3:
					i.Remove(tag(k))
				case 4:
					if _, err := i.Sweep(t.Context(), 0); err != nil {
						t.Error(err)
					}
				case 5:
					if err := i.Flush(); err != nil {
						t.Error(err)
					}
				default:
					if l, ok := i.Lookup(tag(k)); ok && l.Key != tag(k) {
						t.Errorf("Lookup of %v = %+v", tag(k), l)
					}
					i.Touch(tag(k))
					for _, l := range i.To(linkOf(k, n).Descriptor.Digest) {
						if l.Key != tag(k) {
							t.Errorf("To = %+v", l)
						}
					}
				}
			}
		})
	}
	wg.Wait()
	stop()
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	if n := i.Len(); n == 0 || n > 40 {
		t.Errorf("%d links", n)
	}
	j := openOn(t, files, index.Config{})
	scan(t, j)
	if i.Len() != j.Len() {
		t.Errorf("%d links in memory, %d on disk", i.Len(), j.Len())
	}
	for _, l := range i.Links() {
		if on, ok := j.Lookup(l.Key); !ok || !same(on, l) {
			t.Errorf("%s: in memory %+v, on disk %+v, %v", l.Key.Reference, l, on, ok)
		}
	}
	if s, err := j.Sweep(t.Context(), 0); err != nil || s != (index.Swept{}) {
		t.Errorf("left on disk: %+v, %v", s, err)
	}
}

// To follows links as they come, change and go.
func TestTo(t *testing.T) {
	i := openOn(t, disktest.New(1<<30), index.Config{})
	shared := linkOf(0, 0).Descriptor
	rng := rng(1)
	want := make(map[index.Key]bool)
	for range 2000 {
		k := tag(rng.IntN(12))
		switch rng.IntN(3) {
		case 0:
			put(t, i, index.Link{Key: k, Descriptor: shared})
			want[k] = true
		case 1:
			put(t, i, index.Link{Key: k, Descriptor: linkOf(1, 1).Descriptor})
			delete(want, k)
		default:
			i.Remove(k)
			delete(want, k)
		}
		got := make(map[index.Key]bool)
		for _, l := range i.To(shared.Digest) {
			got[l.Key] = true
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("To = %v, want %v", got, want)
		}
	}
}

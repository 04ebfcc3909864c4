package attach_test

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/attach"
	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/readahead"
	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/tracelayer"
)

// run runs a until the function returned is called.
func run(t *testing.T, a *attach.Attacher) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := a.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// readPages reads d in sequence, in pages, as the kernel does without readahead.
func readPages(t *testing.T, d device.Device, want []byte) {
	t.Helper()
	for off := int64(0); off < d.Size(); off += 4096 {
		p := make([]byte, min(4096, d.Size()-off))
		if _, err := d.ReadAt(t.Context(), p, off); err != nil || !slices.Equal(p, want[off:off+int64(len(p))]) {
			t.Fatalf("reading at %d: %v", off, err)
		}
	}
}

// recorded returns what is recorded of reading img in pages, from blobs and with
// nothing in between.
func recorded(t *testing.T, img backstore.Image, r *registry, want []byte) tracelayer.Trace {
	t.Helper()
	var blobs []blob.ReaderAt
	for _, l := range img.Layers {
		blobs = append(blobs, r.layers[l.Digest])
	}
	rec := tracelayer.NewRecorder(0)
	dev, err := backstore.OpenRecorded(t.Context(), blobs, rec)
	if err != nil {
		t.Fatal(err)
	}
	readPages(t, dev, want)
	return rec.Stop()
}

// order sorts records: parallel reads end in any order.
func order(t tracelayer.Trace) tracelayer.Trace {
	slices.SortFunc(t, func(a, b tracelayer.Record) int {
		return cmp.Or(cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.Off, b.Off), cmp.Compare(a.Count, b.Count))
	})
	return t
}

// TestRecord records an image that is also attached as usual. Every read of the
// one is recorded, and nothing else: nothing that is read ahead, nor of the other.
func TestRecord(t *testing.T) {
	remote, mixed, r, want := images(t)
	for name, img := range map[string]backstore.Image{"remote": remote, "mixed": mixed} {
		t.Run(name, func(t *testing.T) {
			k := newKernel()
			a := attach.New(k, r.open, attach.Config{Readahead: readahead.DefaultConfig})
			defer run(t, a)()
			if err := a.Attach(t.Context(), "plain", img, "/plain"); err != nil {
				t.Fatal(err)
			}
			rec := tracelayer.NewRecorder(0)
			if err := a.Record(t.Context(), "rec", img, "/rec", rec); err != nil {
				t.Fatal(err)
			}
			readPages(t, k.devices["plain"], want)
			readPages(t, k.devices["rec"], want)
			readPages(t, k.devices["plain"], want)
			if got, want := order(rec.Stop()), order(recorded(t, remote, r, want)); !slices.Equal(got, want) {
				t.Errorf("recorded is\n%v, want\n%v", got, want)
			}
			if all := a.Images(); len(all) != 1 {
				t.Errorf("images are %v, want the one that is not recorded", all)
			}
			changed := a.Changed()
			a.Recorded("rec")
			a.Recorded("plain")
			a.Recorded("nothing")
			<-changed
			if all := a.Images(); len(all) != 2 {
				t.Errorf("after the recording, images are %v", all)
			}
			check(t, k.devices["rec"], want)
			if err := a.Record(t.Context(), "rec", img, "/rec", tracelayer.NewRecorder(0)); err == nil {
				t.Error("what is attached already is recorded")
			}
			for _, id := range []string{"rec", "plain"} {
				if err := a.Detach(t.Context(), id, "/"+id); err != nil {
					t.Error(err)
				}
			}
			if len(k.devices) != 0 || len(k.mounts) != 0 {
				t.Errorf("left after Detach: devices %v, mounts %v", k.devices, k.mounts)
			}
		})
	}
}

// TestRecordFails has a Record that fails leave nothing, and succeed later.
func TestRecordFails(t *testing.T) {
	remote, _, r, want := images(t)
	k := newKernel()
	a := attach.New(k, r.open, attach.Config{})
	boom := errors.New("boom")
	k.fail["Mount"] = boom
	if err := a.Record(t.Context(), "rec", remote, "/rec", tracelayer.NewRecorder(0)); !errors.Is(err, boom) || len(k.devices) != 0 {
		t.Errorf("Record = %v, devices %v", err, k.devices)
	}
	clear(k.fail)
	rec := tracelayer.NewRecorder(0)
	if err := a.Record(t.Context(), "rec", remote, "/rec", rec); err != nil {
		t.Fatal(err)
	}
	check(t, k.devices["rec"], want)
	if rec.Stats().Records == 0 {
		t.Error("nothing is recorded")
	}
}

// TestRecordLocal has everything held locally: the kernel's readahead is turned on
// for an image that is attached as usual and not for one that is being recorded,
// until that has ended, or another daemon has taken it over.
func TestRecordLocal(t *testing.T) {
	remote, _, r, want := images(t)
	r.set(nil, true)
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		cfg := attach.Config{LocalReadahead: 1024, LocalCheck: time.Second}
		a := attach.New(k, r.open, cfg)
		stop := run(t, a)
		if err := a.Attach(t.Context(), "plain", remote, "/plain"); err != nil {
			t.Fatal(err)
		}
		if err := a.Record(t.Context(), "rec", remote, "/rec", tracelayer.NewRecorder(0)); err != nil {
			t.Fatal(err)
		}
		expect := func(when string, plain, rec int) {
			time.Sleep(time.Minute)
			synctest.Wait()
			k.mu.Lock()
			defer k.mu.Unlock()
			if k.readahead["plain"] != plain || k.readahead["rec"] != rec {
				t.Errorf("%s: readahead is %v, want %d and %d", when, k.readahead, plain, rec)
			}
		}
		if err := a.Record(t.Context(), "short", remote, "/short", tracelayer.NewRecorder(0)); err != nil {
			t.Fatal(err)
		}
		expect("recording", 1024, 0)
		a.Recorded("short")
		expect("recording", 1024, 0)
		if k.readahead["short"] != 1024 {
			t.Errorf("after recording, readahead is %d", k.readahead["short"])
		}
		stop()

		for id := range k.devices {
			k.sizes[id] = int64(len(want))
		}
		b := attach.New(k, r.open, cfg)
		ids, err := b.Recover(t.Context(), []backstore.Attachment{
			{ID: "plain", Image: remote, Target: "/plain"}, {ID: "rec", Image: remote, Target: "/rec"},
			{ID: "short", Image: remote, Target: "/short"},
		})
		if err != nil || !slices.Equal(ids, []string{"plain", "rec", "short"}) {
			t.Fatalf("Recover = %v, %v", ids, err)
		}
		stop = run(t, b)
		check(t, k.devices["rec"], want)
		expect("taken over", 1024, 1024)
		stop()
	})
}

// far is a registry that takes simulated time to answer: a request 20 ms, and a
// second for 10 MB.
type far struct{ blob.Blob }

func (f far) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	time.Sleep(20*time.Millisecond + time.Duration(len(p))*100*time.Nanosecond)
	return f.Blob.ReadAt(ctx, p, off)
}

// startCold reads img in pages, of which nothing is cached, and returns how many
// requests that took after opening it, and what was recorded if record is set.
// It runs in a bubble of synctest: how much is read ahead of a read depends on how
// long those before it took.
func startCold(t *testing.T, img backstore.Image, r *registry, want []byte, record bool) (int, tracelayer.Trace) {
	t.Helper()
	c, err := cache.Open(cache.Config{Dir: filepath.Join(t.TempDir(), "cache"), MaxBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	open := func(ref string, desc ocispec.Descriptor) (blob.Blob, error) {
		b, err := r.open(ref, desc)
		return c.Blob(far{b}), err
	}
	k := newKernel()
	a := attach.New(k, open, attach.Config{Readahead: readahead.DefaultConfig})
	rec := tracelayer.NewRecorder(0)
	if record {
		err = a.Record(t.Context(), "1", img, "/mnt", rec)
	} else {
		err = a.Attach(t.Context(), "1", img, "/mnt")
	}
	if err != nil {
		t.Fatal(err)
	}
	r.opened = 0
	readPages(t, k.devices["1"], want)
	return r.opened, rec.Stop()
}

// TestRecordCold records a start that finds nothing cached: it asks the registry
// for no more than one that is not recorded, and what is read ahead for that is
// not in the recording.
func TestRecordCold(t *testing.T) {
	remote, _, r, want := images(t)
	synctest.Test(t, func(t *testing.T) {
		plain, _ := startCold(t, remote, r, want, false)
		cold, trace := startCold(t, remote, r, want, true)
		t.Logf("%d requests when recorded, %d when not", cold, plain)
		if cold > plain {
			t.Errorf("%d requests when recorded, %d when not", cold, plain)
		}
		if got, want := order(trace), order(recorded(t, remote, r, want)); !slices.Equal(got, want) {
			t.Errorf("recorded are %d reads, want %d", len(got), len(want))
		}
	})
}

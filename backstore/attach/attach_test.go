package attach_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/attach"
	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

const chain3 = "../testdata/vectors/small-chain3/"

// kernel stands in for the device server, whose own tests have the real one:
// here it matters what is asked of it, and when it fails.
type kernel struct {
	mu        sync.Mutex
	devices   map[string]device.Device
	sizes     map[string]int64  // of devices an earlier daemon left
	mounts    map[string]string // id by target
	loops     map[string]bool   // by id
	formats   map[string]string // file system made, by id
	frozen    int               // calls of Freeze
	readahead map[string]int
	ready     bool
	fail      map[string]error // by method
}

func newKernel() *kernel {
	return &kernel{
		devices: map[string]device.Device{}, sizes: map[string]int64{},
		mounts: map[string]string{}, loops: map[string]bool{}, formats: map[string]string{}, readahead: map[string]int{}, fail: map[string]error{},
	}
}

func (k *kernel) Add(_ context.Context, id string, d device.Device) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail["Add"] == nil {
		k.devices[id] = d
	}
	return k.fail["Add"]
}

func (k *kernel) Remove(_ context.Context, id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.devices[id] == nil && k.sizes[id] == 0 {
		return fmt.Errorf("removing device %s: %w", id, fusedev.ErrNotFound)
	}
	delete(k.devices, id)
	delete(k.sizes, id)
	return k.fail["Remove"]
}

func (k *kernel) Mount(_ context.Context, id string, m fusedev.Mount) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail["Mount"] == nil {
		k.mounts[m.Target] = id
	}
	return k.fail["Mount"]
}

func (k *kernel) Unmount(_ context.Context, target string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail["Unmount"] == nil {
		delete(k.mounts, target)
	}
	return k.fail["Unmount"]
}

func (k *kernel) SetReadahead(_ context.Context, id string, kib int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.readahead[id] = kib
	return nil
}

func (k *kernel) Mounts() ([]fusedev.MountInfo, error) {
	var infos []fusedev.MountInfo
	for _, target := range slices.Sorted(maps.Keys(k.mounts)) {
		infos = append(infos, fusedev.MountInfo{ID: k.mounts[target], Target: target})
	}
	return infos, nil
}

func (k *kernel) Stats() []fusedev.DeviceStats {
	var stats []fusedev.DeviceStats
	for _, id := range slices.Sorted(maps.Keys(k.sizes)) {
		stats = append(stats, fusedev.DeviceStats{ID: id, Size: k.sizes[id]})
	}
	return stats
}

func (k *kernel) Ready() { k.ready = true }

func (k *kernel) Resized(context.Context, string) error { return k.fail["Resized"] }

func (k *kernel) Format(_ context.Context, id, fsType, _ string) error {
	k.formats[id] = fsType
	return k.fail["Format"]
}

func (k *kernel) Loop(_ context.Context, id string) (string, error) {
	if k.fail["Loop"] == nil {
		k.loops[id] = true
	}
	return "/dev/loop-" + id, k.fail["Loop"]
}

func (k *kernel) Loops() ([]fusedev.LoopInfo, error) {
	var infos []fusedev.LoopInfo
	for _, id := range slices.Sorted(maps.Keys(k.loops)) {
		infos = append(infos, fusedev.LoopInfo{ID: id, Dev: "/dev/loop-" + id})
	}
	return infos, nil
}

func (k *kernel) Unloop(_ context.Context, id string) error {
	if k.fail["Unloop"] == nil {
		delete(k.loops, id)
	}
	return k.fail["Unloop"]
}

func (k *kernel) Freeze(_ context.Context, _ string, during func() error) error {
	k.frozen++
	return during()
}

func (k *kernel) Tidy(context.Context) error { return k.fail["Tidy"] }

func (k *kernel) GrowFS(context.Context, string, string) error { return k.fail["GrowFS"] }

// registry serves the three layers of the vector, or fails.
type registry struct {
	mu     sync.Mutex
	layers map[digest.Digest]blob.Blob
	down   error
	local  bool // the blobs say that they are present
	opened int
}

func (r *registry) open(ref string, desc ocispec.Descriptor) (blob.Blob, error) {
	return served{r.layers[desc.Digest], r}, nil
}

func (r *registry) set(down error, local bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down, r.local = down, local
}

type served struct {
	blob.Blob
	r *registry
}

func (s served) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	s.r.mu.Lock()
	down := s.r.down
	s.r.opened++
	s.r.mu.Unlock()
	if down != nil {
		return 0, down
	}
	return s.Blob.ReadAt(ctx, p, off)
}

func (s served) Present(off, n int64) bool {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	return s.r.local
}

// images returns the vector as a remote image with its registry, the same with
// one local layer, and what the device holds. It is not called in a bubble of
// synctest.
func images(t *testing.T) (remote, mixed backstore.Image, r *registry, want []byte) {
	t.Helper()
	r = &registry{layers: map[digest.Digest]blob.Blob{}}
	remote.Ref = "registry.example/app:1"
	for _, name := range []string{"L0.lz4-4k.tar", "L1.zstd-4k.zfile", "L2.raw.lsmt"} {
		data, err := os.ReadFile(chain3 + name)
		if err != nil {
			t.Fatal(err)
		}
		b := blobtest.Bytes(data)
		r.layers[b.Descriptor().Digest] = b
		remote.Layers = append(remote.Layers, backstore.Layer{Digest: b.Descriptor().Digest, Size: b.Size()})
	}
	mixed = remote
	mixed.Layers = slices.Clone(remote.Layers)
	mixed.Layers[1].File = chain3 + "L1.lz4-4k.tar"
	f, err := os.Open(chain3 + "expected.raw.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err == nil {
		want, err = io.ReadAll(z)
	}
	if err != nil {
		t.Fatal(err)
	}
	// All readers of zstd share a decoder that the first of them makes. If that were
	// in a bubble, it would belong to it, and readers outside would panic.
	zstd := remote.Layers[1].Digest
	if _, err := backstore.OpenLayer(t.Context(), r.layers[zstd]); err != nil {
		t.Fatal(err)
	}
	return remote, mixed, r, want
}

func check(t *testing.T, d device.Device, want []byte) {
	t.Helper()
	if d == nil {
		t.Fatal("the device is not served")
	}
	got := make([]byte, d.Size())
	if _, err := d.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("reading the device: %v, equal: %v", err, bytes.Equal(got, want))
	}
}

func TestAttachAndDetach(t *testing.T) {
	remote, mixed, r, want := images(t)
	for name, img := range map[string]backstore.Image{"remote": remote, "mixed": mixed} {
		t.Run(name, func(t *testing.T) {
			k := newKernel()
			a := attach.New(k, r.open, attach.Config{})
			for range 2 { // the second finds everything done
				if err := a.Attach(t.Context(), "7", img, "/mnt"); err != nil {
					t.Fatal(err)
				}
			}
			check(t, k.devices["7"], want)
			delete(k.mounts, "/mnt") // as a user might
			if err := a.Attach(t.Context(), "7", img, "/mnt"); err != nil || k.mounts["/mnt"] != "7" {
				t.Errorf("attaching again: %v, mounts %v", err, k.mounts)
			}
			for range 2 {
				if err := a.Detach(t.Context(), "7", "/mnt"); err != nil {
					t.Error(err)
				}
			}
			if len(k.devices) != 0 || len(k.mounts) != 0 {
				t.Errorf("left after Detach: devices %v, mounts %v", k.devices, k.mounts)
			}
		})
	}
}

func TestFailedAttachLeavesNothing(t *testing.T) {
	remote, _, r, want := images(t)
	boom := errors.New("boom")
	for _, method := range []string{"registry", "Add", "Mount"} {
		t.Run(method, func(t *testing.T) {
			k := newKernel()
			a := attach.New(k, r.open, attach.Config{})
			if method == "registry" {
				r.set(boom, false)
			} else {
				k.fail[method] = boom
			}
			if err := a.Attach(t.Context(), "7", remote, "/mnt"); !errors.Is(err, boom) {
				t.Errorf("Attach = %v, want %v", err, boom)
			}
			if len(k.devices) != 0 || len(k.mounts) != 0 {
				t.Errorf("left: devices %v, mounts %v", k.devices, k.mounts)
			}
			// As the snapshotter does, which does not know how far it came.
			if err := a.Detach(t.Context(), "7", "/mnt"); err != nil {
				t.Errorf("Detach = %v", err)
			}
			r.set(nil, false)
			clear(k.fail)
			if err := a.Attach(t.Context(), "7", remote, "/mnt"); err != nil {
				t.Fatalf("trying again: %v", err)
			}
			check(t, k.devices["7"], want)
		})
	}
}

func TestMissingLayerFileIsNamed(t *testing.T) {
	_, mixed, r, _ := images(t)
	mixed.Layers[1].File = filepath.Join(t.TempDir(), "overlaybd.commit")
	err := attach.New(newKernel(), r.open, attach.Config{}).Attach(t.Context(), "7", mixed, "/mnt")
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Attach = %v, want that the file does not exist", err)
	}
}

func TestBusyDetachCanBeRepeated(t *testing.T) {
	remote, _, r, want := images(t)
	k := newKernel()
	a := attach.New(k, r.open, attach.Config{})
	if err := a.Attach(t.Context(), "7", remote, "/mnt"); err != nil {
		t.Fatal(err)
	}
	k.fail["Unmount"] = fusedev.ErrBusy
	if err := a.Detach(t.Context(), "7", "/mnt"); !errors.Is(err, fusedev.ErrBusy) {
		t.Errorf("Detach = %v, want ErrBusy", err)
	}
	check(t, k.devices["7"], want)
	clear(k.fail)
	if err := a.Detach(t.Context(), "7", "/mnt"); err != nil || len(k.devices) != 0 {
		t.Errorf("detaching again: %v, devices %v", err, k.devices)
	}
}

func TestRecoverNeedsNoRegistry(t *testing.T) {
	remote, _, r, want := images(t)
	r.set(errors.New("registry is down"), false)
	k := newKernel()
	k.sizes = map[string]int64{"1": int64(len(want)), "2": 512, "3": 512, "4": 512}
	k.mounts = map[string]string{"/one": "1", "/elsewhere": "2", "/three": "3"}
	a := attach.New(k, r.open, attach.Config{})
	got, err := a.Recover(t.Context(), []backstore.Attachment{
		{ID: "1", Image: remote, Target: "/one"},
		{ID: "2", Image: remote, Target: "/two"},  // mounted elsewhere, by who uses it
		{ID: "4", Image: remote, Target: "/four"}, // not mounted
		{ID: "5", Image: remote, Target: "/five"}, // not even served
	})
	if err != nil || !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("Recover = %v, %v, want [1 2]", got, err)
	}
	if !k.ready || len(k.mounts) != 2 || len(k.sizes) != 2 {
		t.Errorf("ready %v, left mounts %v, devices %v", k.ready, k.mounts, k.sizes)
	}
	if r.opened != 0 {
		t.Errorf("%d reads of the registry", r.opened)
	}
	if _, err := k.devices["1"].ReadAt(t.Context(), make([]byte, 512), 0); err == nil {
		t.Error("reading while the registry is down gives no error")
	}
	r.set(nil, false)
	check(t, k.devices["1"], want)
}

func TestRecoverRefusesAnotherDevice(t *testing.T) {
	remote, _, r, want := images(t)
	k := newKernel()
	k.sizes = map[string]int64{"1": int64(len(want)) * 2}
	k.mounts = map[string]string{"/one": "1"}
	a := attach.New(k, r.open, attach.Config{})
	if _, err := a.Recover(t.Context(), []backstore.Attachment{{ID: "1", Image: remote, Target: "/one"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.devices["1"].ReadAt(t.Context(), make([]byte, 512), 0); err == nil {
		t.Error("a device that has shrunk under its mount is read")
	}
}

func TestRecoverLeavesBusyStrays(t *testing.T) {
	k := newKernel()
	k.sizes = map[string]int64{"9": 512}
	k.mounts = map[string]string{"/stray": "9"}
	k.fail["Unmount"] = fusedev.ErrBusy
	a := attach.New(k, nil, attach.Config{})
	if got, err := a.Recover(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("Recover = %v, %v, want nothing", got, err)
	}
	if len(k.sizes) != 1 {
		t.Error("a device was removed under its busy mount")
	}
}

func TestKernelReadaheadFollowsPresence(t *testing.T) {
	remote, _, r, _ := images(t)
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		a := attach.New(k, r.open, attach.Config{LocalReadahead: 1024, LocalCheck: time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := a.Run(ctx); err != nil {
				t.Errorf("Run = %v", err)
			}
		})
		if err := a.Attach(ctx, "7", remote, "/mnt"); err != nil {
			t.Fatal(err)
		}
		expect := func(when string, want int, set bool) {
			synctest.Wait()
			k.mu.Lock()
			defer k.mu.Unlock()
			if kib, ok := k.readahead["7"]; kib != want || ok != set {
				t.Errorf("%s: readahead %d KiB, set: %v; want %d, %v", when, kib, ok, want, set)
			}
			if s := a.Stats(); s.Attached != 1 || (s.Local == 1) != (want > 0) {
				t.Errorf("%s: %+v", when, s)
			}
		}
		time.Sleep(time.Minute)
		expect("cold", 0, false)
		r.set(nil, true)
		time.Sleep(2 * time.Second)
		expect("local", 1024, true)
		r.set(nil, false)
		time.Sleep(time.Minute)
		expect("evicted", 0, true)
		if err := a.Detach(ctx, "7", "/mnt"); err != nil {
			t.Error(err)
		}
		cancel()
		wg.Wait()
	})
}

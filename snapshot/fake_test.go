package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/snapshot"
)

// fakeDevices is a Devices without kernel: it stands for devices that fail,
// block or lose their state, and checks what the interface promises them.
type fakeDevices struct {
	t *testing.T

	mu        sync.Mutex
	mounted   map[string]backstore.Image // by target
	busy      map[string]bool            // ids with a call in progress
	calls     []string
	recovered []backstore.Attachment
	cache     map[digest.Digest]int64
	// prefetched has what Prefetch was told, recorded what Record was by id.
	prefetched []backstore.Image
	recorded   map[string]snapshot.RecordOptions
	abandoned  map[string]snapshot.RecordOptions
	wanted     string // image that is recorded without being asked

	// fail, if set, decides the outcome of a call; it may block.
	fail func(ctx context.Context, call, id string) error
}

func newFake(t *testing.T) *fakeDevices {
	return &fakeDevices{t: t, mounted: map[string]backstore.Image{}, busy: map[string]bool{}, cache: map[digest.Digest]int64{},
		recorded: map[string]snapshot.RecordOptions{}, abandoned: map[string]snapshot.RecordOptions{}}
}

func (f *fakeDevices) begin(ctx context.Context, call, id string) error {
	f.mu.Lock()
	if f.busy[id] {
		f.t.Errorf("%s of image %s during another call for it", call, id)
	}
	f.busy[id] = true
	f.calls = append(f.calls, call+" "+id)
	fail := f.fail
	f.mu.Unlock()
	if fail == nil {
		return nil
	}
	return fail(ctx, call, id)
}

func (f *fakeDevices) end(id string) { delete(f.busy, id); f.mu.Unlock() }

func (f *fakeDevices) Attach(ctx context.Context, id string, img backstore.Image, target string) error {
	err := f.begin(ctx, "attach", id)
	f.mu.Lock()
	defer f.end(id)
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(target); err != nil || len(entries) > 0 {
		f.t.Errorf("target %s is not an empty directory: %v %v", target, entries, err)
	}
	f.mounted[target] = img
	return nil
}

func (f *fakeDevices) Detach(ctx context.Context, id, target string) error {
	err := f.begin(ctx, "detach", id)
	f.mu.Lock()
	defer f.end(id)
	if err != nil {
		return err
	}
	delete(f.mounted, target)
	return nil
}

func (f *fakeDevices) Recover(_ context.Context, images []backstore.Attachment) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recovered = images
	keep := map[string]backstore.Image{}
	var ids []string
	for _, a := range images {
		if _, ok := f.mounted[a.Target]; ok {
			keep[a.Target] = a.Image
			ids = append(ids, a.ID)
		}
	}
	f.mounted = keep
	return ids, nil
}

func (f *fakeDevices) Prefetch(img backstore.Image) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prefetched = append(f.prefetched, img)
}

// takePrefetched returns what Prefetch was told since the last call.
func (f *fakeDevices) takePrefetched() []backstore.Image {
	f.mu.Lock()
	defer f.mu.Unlock()
	told := f.prefetched
	f.prefetched = nil
	return told
}

func (f *fakeDevices) Wanted(ref string) bool { return ref == f.wanted }

func (f *fakeDevices) Record(ctx context.Context, id string, img backstore.Image, target string, opts snapshot.RecordOptions) error {
	if err := f.begin(ctx, "record", id); err != nil {
		f.mu.Lock()
		defer f.end(id)
		return err
	}
	f.mu.Lock()
	defer f.end(id)
	if _, ok := f.mounted[target]; ok {
		f.t.Errorf("%s is recorded, and attached already", id)
	}
	if entries, err := os.ReadDir(target); err != nil || len(entries) > 0 {
		f.t.Errorf("target %s is not an empty directory: %v %v", target, entries, err)
	}
	f.mounted[target] = img
	f.recorded[id] = opts
	return nil
}

func (f *fakeDevices) Abandon(id string, opts snapshot.RecordOptions) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.abandoned[id] = opts
}

func (f *fakeDevices) CacheUsage(d digest.Digest) int64 { return f.cache[d] }

// targets returns where images are mounted.
func (f *fakeDevices) targets() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.mounted))
}

func (f *fakeDevices) image(target string) backstore.Image {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mounted[target]
}

func (f *fakeDevices) count(call string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if c[:len(call)] == call {
			n++
		}
	}
	return n
}

func (f *fakeDevices) script(fail func(ctx context.Context, call, id string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

// reboot forgets all mounts.
func (f *fakeDevices) reboot() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.mounted)
}

var errInjected = errors.New("injected failure")

// everyNth fails every n-th call of Attach and Detach.
func everyNth(n int) func(context.Context, string, string) error {
	var mu sync.Mutex
	calls := 0
	return func(_ context.Context, call, id string) error {
		mu.Lock()
		defer mu.Unlock()
		if calls++; calls%n == 0 {
			return fmt.Errorf("%s %s, call %d: %w", call, id, calls, errInjected)
		}
		return nil
	}
}

// checkNothingLeft fails the test if below root there is a snapshot directory
// or something staged.
func checkNothingLeft(t *testing.T, root string) {
	t.Helper()
	for _, dir := range []string{"snapshots", "new"} {
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil {
			t.Error(err)
		}
		for _, e := range entries {
			t.Errorf("%s/%s is left", dir, e.Name())
		}
	}
}

package recordings_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/cmd/internal/recordings"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/snapshot"
	"github.com/reprise-containers/reprise/tracelayer"
)

const (
	chain3 = "../../../backstore/testdata/vectors/small-chain3/"
	ref    = "registry.example:5000/team/app:1"
)

// node records images made of the layers of a vector of upstream's tools.
type node struct {
	t *testing.T
	*recordings.Recordings
	img   backstore.Image
	blobs map[digest.Digest]blob.Blob
	dir   string

	mu       sync.Mutex
	devices  map[string]blob.ReaderAt // recorded
	fail     error                    // of attaching
	idle     bool                     // nothing is ever read
	down     error                    // of the registry, when blobs are opened
	stalled  chan struct{}            // blobs are not read before it is closed, if it is not nil
	results  []recordings.Result
	failures []error
	ended    []string // devices that are recorded no more
	stop     func()
}

func newNode(t *testing.T, change func(*recordings.Config)) *node {
	t.Helper()
	n := &node{t: t, blobs: map[digest.Digest]blob.Blob{}, devices: map[string]blob.ReaderAt{}, dir: t.TempDir()}
	n.img.Ref = ref
	for _, name := range []string{"L0.lz4-4k.tar", "L1.zstd-4k.zfile", "L2.raw.lsmt"} {
		data, err := os.ReadFile(chain3 + name)
		n.must(err)
		b := blobtest.Bytes(data)
		n.blobs[b.Descriptor().Digest] = b
		n.img.Layers = append(n.img.Layers, backstore.Layer{Digest: b.Descriptor().Digest, Size: b.Size()})
	}
	cfg := recordings.Config{
		Dir: filepath.Join(n.dir, "traces"), Images: []string{"registry.example:5000/team/*"},
		ByLabel: true, Paths: []string{"/nonexistent", n.dir}, Time: time.Hour, LabelTime: time.Hour, PlanTime: time.Hour,
		Keep: 2, Records: 1000, Parallel: 2,
	}
	if change != nil {
		change(&cfg)
	}
	n.Recordings = recordings.New(devices{n}, n.open, n, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) open(_ string, desc ocispec.Descriptor) (blob.Blob, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stalled != nil {
		return stalled{n.blobs[desc.Digest], n.stalled}, nil
	}
	return n.blobs[desc.Digest], n.down
}

// stalled is a blob whose registry does not answer, for as long as somebody waits.
type stalled struct {
	blob.Blob
	until chan struct{}
}

func (s stalled) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-s.until:
		return s.Blob.ReadAt(ctx, p, off)
	}
}

// devices attaches images without a kernel: what is mounted on a target is read
// from here.
type devices struct{ *node }

func (d devices) Record(ctx context.Context, id string, img backstore.Image, target string, r *tracelayer.Recorder) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil || d.idle {
		return d.fail
	}
	var layers []blob.ReaderAt
	for _, l := range img.Layers {
		layers = append(layers, d.blobs[l.Digest])
	}
	dev, err := backstore.OpenRecorded(ctx, layers, r)
	d.devices[id] = dev
	return err
}

func (d devices) Recorded(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = append(d.ended, id)
}

func (n *node) Recorded(r recordings.Result) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.results = append(n.results, r)
}

func (n *node) RecordingFailed(_, _ string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.failures = append(n.failures, err)
}

// file makes the file that a client names.
func (n *node) file(name string) string {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	n.must(os.WriteFile(path, nil, 0o600))
	return path
}

// start records a container that is asked for at path, and reads of its image.
func (n *node) start(id, path string) {
	n.t.Helper()
	n.must(n.Record(n.t.Context(), id, n.img, "/mnt", snapshot.RecordOptions{Asked: true, File: path}))
	n.read(id)
}

func (n *node) read(id string) {
	n.t.Helper()
	dev := n.devices[id]
	for _, off := range []int64{0, dev.Size() / 8192 / 2 * 8192, 64 << 10} {
		if _, err := dev.ReadAt(n.t.Context(), make([]byte, 8192), off); err != nil {
			n.t.Fatal(err)
		}
	}
}

// wait waits for the outcome of a recording, as clients do.
func (n *node) wait(path string) (failed string) {
	n.t.Helper()
	n.until("it is told what became of "+path, func() bool {
		text, err := os.ReadFile(path + ".err")
		failed = string(text)
		return err == nil && len(text) > 0 || exists(path+".ok")
	})
	return failed
}

// patience is how long something may take that happens in a moment, if at all.
const patience = time.Minute

// until waits until something holds.
func (n *node) until(what string, holds func() bool) {
	n.t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			n.t.Fatalf("waited for %v until %s", patience, what)
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// check looks at what was written, as whoever makes a trace layer of it does.
func (n *node) check(path string, want int) {
	n.t.Helper()
	text, err := os.ReadFile(path)
	n.must(err)
	trace, err := tracelayer.Decode(text)
	n.must(err)
	if len(trace) < want || len(trace) == 0 {
		n.t.Errorf("%d records, want at least %d", len(trace), want)
	}
	text, err = os.ReadFile(path + ".plan")
	n.must(err)
	plan, err := tracelayer.DecodePlan(text)
	n.must(err)
	st, err := os.Stat(path + ".data")
	n.must(err)
	if len(plan.Extents) == 0 || st.Size() != plan.DataSize() || st.Size() == 0 {
		n.t.Errorf("%d extents, %d bytes of data for %d", len(plan.Extents), st.Size(), plan.DataSize())
	}
	for i, l := range n.img.Layers {
		if plan.Layers[i].Digest != l.Digest {
			n.t.Errorf("layer %d of the plan is %s", i, plan.Layers[i].Digest)
		}
	}
	if exists(path+".lock") || exists(path+".err") {
		n.t.Error("the lock is left, or an error")
	}
}

// TestEnds: the lock that the client removes, and the device that goes.
func TestEnds(t *testing.T) {
	n := newNode(t, nil)
	for name, end := range map[string]func(id, path string){
		"lock":   func(_, path string) { n.must(os.Remove(path + ".lock")) },
		"device": func(id, _ string) { n.Ended(id) },
	} {
		t.Run(name, func(t *testing.T) {
			path := n.file(name)
			for _, suffix := range []string{".ok", ".err", ".plan", ".data", ".lock"} { // of an earlier recording
				n.must(os.WriteFile(path+suffix, []byte("old"), 0o600))
			}
			n.start(name, path)
			if !exists(path+".lock") || exists(path+".ok") {
				t.Error("there is no lock, or still a result")
			}
			end(name, path)
			if failed := n.wait(path); failed != "" {
				t.Fatal(failed)
			}
			n.check(path, 3)
		})
	}
	n.until("both are counted", func() bool { return n.Stats() == recordings.Stats{Started: 2, Finished: 2} })
	if slices.Sort(n.ended); !slices.Equal(n.ended, []string{"device", "lock"}) {
		t.Errorf("%v are like any other device again", n.ended)
	}
}

func TestAutomatic(t *testing.T) {
	n := newNode(t, func(c *recordings.Config) { c.Time = 50 * time.Millisecond })
	if !n.Wanted(ref) || n.Wanted("registry.example:5000/other/app:1") {
		t.Error("the patterns are not those that were given")
	}
	for i := range 2 {
		n.must(n.Record(t.Context(), "1", n.img, "/mnt", snapshot.RecordOptions{}))
		n.read("1")
		n.until("it has ended", func() bool { return n.Stats().Finished == int64(i+1) })
	}
	paths, err := filepath.Glob(filepath.Join(n.dir, "traces", "registry.example:5000_team_app", "*.ok"))
	n.must(err)
	if len(paths) != 2 {
		t.Fatalf("recordings %v", paths)
	}
	for _, ok := range paths {
		n.check(strings.TrimSuffix(ok, ".ok"), 3)
	}
	if n.Wanted(ref) {
		t.Error("there are enough, and still one more is wanted")
	}
	// A label must not fill the disk either.
	if err := n.Record(t.Context(), "2", n.img, "/mnt", snapshot.RecordOptions{Asked: true}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("one too many: %v", err)
	}
}

func TestLimits(t *testing.T) {
	n := newNode(t, nil)
	a, b, c := n.file("a"), n.file("b"), n.file("c")
	n.start("1", a)
	again := n.Record(t.Context(), "2", n.img, "/mnt", snapshot.RecordOptions{Asked: true, File: a})
	if !errdefs.IsFailedPrecondition(again) {
		t.Errorf("the same file twice: %v", again)
	}
	n.start("2", b)
	if err := n.Record(t.Context(), "3", n.img, "/mnt", snapshot.RecordOptions{Asked: true, File: c}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("too many: %v", err)
	}
	if n.Wanted(ref) {
		t.Error("another one is wanted")
	}
	if err := n.Record(t.Context(), "3", n.img, "/mnt", snapshot.RecordOptions{}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("too many: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(n.dir, "traces", "*", "*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	n.Ended("1")
	if failed := n.wait(a); failed != "" {
		t.Error(failed)
	}
	n.until("another one can begin", func() bool { return n.Stats().Finished > 0 })
	n.start("3", c)

	off := newNode(t, func(c *recordings.Config) { c.ByLabel = false })
	if err := off.Record(t.Context(), "1", off.img, "/mnt", snapshot.RecordOptions{Asked: true, File: off.file("a")}); !errdefs.IsPermissionDenied(err) {
		t.Errorf("labels are off: %v", err)
	}
}

func TestFailures(t *testing.T) {
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		begin func(n *node, path string)
		says  string
	}{
		"registry": {func(n *node, path string) {
			n.start("1", path)
			n.mu.Lock()
			n.down = boom
			n.mu.Unlock()
			n.Ended("1")
		}, "boom"},
		"nothing read": {func(n *node, path string) {
			n.idle = true
			n.must(n.Record(n.t.Context(), "1", n.img, "/mnt", snapshot.RecordOptions{Asked: true, File: path}))
			n.Ended("1")
		}, "nothing was read"},
		"stopped": {func(n *node, path string) {
			n.start("1", path)
			n.stop()
		}, "stopped"},
		"attach": {func(n *node, path string) {
			n.fail = boom
			err := n.Record(n.t.Context(), "1", n.img, "/mnt", snapshot.RecordOptions{Asked: true, File: path})
			if !errors.Is(err, boom) {
				n.t.Errorf("Record = %v", err)
			}
		}, "boom"},
		"abandoned": {func(n *node, path string) {
			n.must(os.WriteFile(path+".lock", nil, 0o600))
			n.Abandon("1", snapshot.RecordOptions{Asked: true, File: path})
		}, "stopped"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, nil)
			path := n.file("trace")
			c.begin(n, path)
			if failed := n.wait(path); !strings.Contains(failed, c.says) {
				t.Errorf("the reason is %q, want %q", failed, c.says)
			}
			for _, suffix := range []string{".lock", ".ok", ".plan", ".data"} {
				if exists(path + suffix) {
					t.Errorf("%s is left", suffix)
				}
			}
			if st, err := os.Stat(path); err != nil || st.Size() != 0 {
				t.Errorf("trace: %v, %v", st, err)
			}
			if n.Stats().Started > 0 { // so there is a device, which goes on
				n.until("the device is like any other", func() bool {
					n.mu.Lock()
					defer n.mu.Unlock()
					return slices.Equal(n.ended, []string{"1"}) && len(n.failures) == 1
				})
			}
		})
	}
}

// TestWithoutPlan: layers that are in no registry that is known.
func TestWithoutPlan(t *testing.T) {
	n := newNode(t, nil)
	n.img.Ref = ""
	path := n.file("trace")
	n.start("1", path)
	n.Ended("1")
	if failed := n.wait(path); failed != "" {
		t.Fatal(failed)
	}
	text, err := os.ReadFile(path)
	n.must(err)
	if trace, err := tracelayer.Decode(text); err != nil || len(trace) == 0 {
		t.Errorf("%d records, %v", len(trace), err)
	}
	if exists(path+".plan") || exists(path+".data") {
		t.Error("there is a plan")
	}
}

// TestLocalCopies: the blob is read from its copy, and what is no copy is not
// taken for one.
func TestLocalCopies(t *testing.T) {
	n := newNode(t, nil)
	for i, name := range []string{"L0.lz4-4k.tar", "L1.lz4-4k.tar", "L2.raw.lsmt"} {
		n.img.Layers[i].File = chain3 + name
	}
	path := n.file("trace")
	n.start("1", path)
	n.Ended("1")
	if failed := n.wait(path); failed != "" {
		t.Fatal(failed)
	}
	n.check(path, 3)
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	traces := filepath.Join(dir, "traces", "repo")
	if err := os.MkdirAll(traces, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"half.trace", "half.trace.lock", "half.trace.data", "whole.trace", "whole.trace.ok", "x.lock"} {
		if err := os.WriteFile(filepath.Join(traces, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := newNode(t, func(c *recordings.Config) { c.Dir = filepath.Join(dir, "traces") })
	n.stop() // which it does not do before it has swept
	entries, err := os.ReadDir(traces)
	n.must(err)
	var left bytes.Buffer
	for _, e := range entries {
		fmt.Fprint(&left, e.Name(), " ")
	}
	if left.String() != "whole.trace whole.trace.ok x.lock " {
		t.Errorf("left %s", left.String())
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, ref string
		want         bool
	}{
		{"registry.example/repo*", "registry.example/repo:1", true},
		{"registry.example/repo*", "registry.example/repo2/app@sha256:" + strings.Repeat("0", 64), true},
		{"registry.example/repo*", "registry.example/rep:1", false},
		{"registry.example/repo:1", "registry.example/repo:1", true},
		{"registry.example/repo:1", "registry.example/repo:12", false},
		{"*:prod", "registry.example/team/app:prod", true},
		{"*:prod", "registry.example/team/app:prod2", false},
		{"docker.io/library/*", "redis:7", true},
		{"redis:7", "redis:7", true},
		{"*/team/*:*", "r/team/app:1", true},
		{"*/team/*:*", "r/team/app", false},
		{"a*a", "a", false},
		{"*", "anything", true},
		{"", "anything", false},
	} {
		n := newNode(t, func(cfg *recordings.Config) { cfg.Images = []string{c.pattern} })
		if got := n.Wanted(c.ref); got != c.want {
			t.Errorf("%q, %q: %v", c.pattern, c.ref, got)
		}
		n.stop()
	}
}

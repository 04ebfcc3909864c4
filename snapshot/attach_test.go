package snapshot_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/snapshot"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

func TestLastUserDetaches(t *testing.T) {
	n := newNode(t)
	top := n.pull("base", "app")
	n.must(n.unpack("plain", top, plainLabels("plain"), nil))
	n.run("c1", top)
	n.run("c2", "plain")
	_, err := n.View(t.Context(), "v", top)
	n.must(err)
	for _, key := range []string{"c1", "v"} {
		n.must(n.Remove(t.Context(), key))
		if len(n.fake.targets()) != 1 {
			t.Fatalf("image is gone with %s, c2 uses it", key)
		}
	}
	n.must(n.Remove(t.Context(), "c2"))
	if got := n.fake.targets(); len(got) != 0 {
		t.Errorf("image is still mounted at %v", got)
	}
	n.must(n.Cleanup(t.Context()))
	if got := n.fake.count("detach"); got != 1 {
		t.Errorf("%d calls to detach one image", got)
	}
	n.run("c3", top)
	if got := n.fake.targets(); len(got) != 1 {
		t.Errorf("image is mounted at %v", got)
	}
	// One that was unpacked and committed uses it no more.
	n.must(n.Remove(t.Context(), "c3"))
	n.must(n.unpack("plain2", top, plainLabels("plain2"), nil))
	n.must(n.Cleanup(t.Context()))
	if got := n.fake.targets(); len(got) != 0 {
		t.Errorf("image is still mounted at %v", got)
	}
}

func TestKeepIdle(t *testing.T) {
	n := newNodeWith(t, snapshot.Config{KeepIdle: true})
	top := n.pull("base")
	n.run("c", top)
	n.must(n.Remove(t.Context(), "c"))
	n.must(n.Cleanup(t.Context()))
	if got := n.fake.targets(); len(got) != 1 {
		t.Errorf("image is mounted at %v", got)
	}
	n.must(n.Remove(t.Context(), top))
	if got := n.fake.targets(); len(got) != 0 {
		t.Errorf("removed image is mounted at %v", got)
	}
	checkNothingLeft(t, n.cfg.Root)
}

// TestImageInUse: neither with children nor with a mount that is busy can an
// image be removed, and the first must not cost the children their mount.
func TestImageInUse(t *testing.T) {
	n := newNodeWith(t, snapshot.Config{KeepIdle: true})
	top := n.pull("base")
	n.run("c", top)
	if err := n.Remove(t.Context(), top); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("with a child: %v", err)
	}
	if len(n.fake.targets()) != 1 {
		t.Fatal("the mount of the child is gone")
	}
	n.must(n.Remove(t.Context(), "c"))
	n.fake.script(func(context.Context, string, string) error { return errors.New("device or resource busy") })
	if err := n.Remove(t.Context(), top); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "busy") {
		t.Errorf("with a busy mount: %v", err)
	}
	if _, err := n.Stat(t.Context(), top); err != nil {
		t.Errorf("the snapshot is gone: %v", err)
	}
	n.fake.script(nil)
	n.must(n.Remove(t.Context(), top))
	checkNothingLeft(t, n.cfg.Root)
}

func TestFailedAttach(t *testing.T) {
	n := newNode(t)
	top := n.pull("base")
	n.fake.script(func(_ context.Context, call, _ string) error {
		if call == "attach" {
			return errInjected
		}
		return nil
	})
	_, err := n.Prepare(t.Context(), "c", top)
	if !errors.Is(err, errInjected) || !strings.Contains(err.Error(), testRef) {
		t.Errorf("%v does not say why or for which image", err)
	}
	if got := names(t, n); len(got) != 1 {
		t.Errorf("snapshots %v", got)
	}
	if n.fake.count("detach") != 1 {
		t.Errorf("calls %v: what was left half attached?", n.fake.calls)
	}
	n.fake.script(nil)
	n.run("c", top)
}

func TestFailedDetachIsTriedAgain(t *testing.T) {
	n := newNode(t)
	n.run("c", n.pull("base"))
	n.fake.script(func(context.Context, string, string) error { return errInjected })
	n.must(n.Remove(t.Context(), "c")) // the container is gone whatever devices do
	if err := n.Cleanup(t.Context()); !errors.Is(err, errInjected) {
		t.Errorf("Cleanup says %v", err)
	}
	n.fake.script(nil)
	n.must(n.Cleanup(t.Context()))
	if got := n.fake.targets(); len(got) != 0 {
		t.Errorf("image is still mounted at %v", got)
	}
}

// TestStuckImage: a registry that hangs delays those who need the image, and
// nobody else.
func TestStuckImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNodeWith(t, snapshot.Config{AttachTimeout: time.Minute})
		stuck, other := n.pull("stuck"), n.pull("other")
		n.fake.script(func(ctx context.Context, call, id string) error {
			if call == "attach" && id == idOf(n, stuck) {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		var wg sync.WaitGroup
		begin := time.Now() // the bubble's clock: it stands still unless all wait
		for i := range 3 {
			wg.Go(func() {
				_, err := n.Prepare(t.Context(), fmt.Sprint("s", i), stuck)
				if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "registry") {
					t.Errorf("stuck: %v", err)
				}
			})
		}
		synctest.Wait()
		n.run("c", other)
		n.must(n.Remove(t.Context(), "c"))
		if err := n.Remove(t.Context(), stuck); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("removing an image that is being attached: %v", err)
		}
		n.must(n.Cleanup(t.Context()))
		if waited := time.Since(begin); waited > 0 {
			t.Errorf("others waited for %v", waited)
		}
		wg.Wait()
		n.must(clearAll(t.Context(), n))
		checkNothingLeft(t, n.cfg.Root)
	})
}

// TestCallerGoesAway: what was begun for a client that left is taken back.
func TestCallerGoesAway(t *testing.T) {
	n := newNode(t)
	top := n.pull("base")
	ctx, cancel := context.WithCancel(t.Context())
	n.fake.script(func(ctx context.Context, call, _ string) error {
		if call == "attach" {
			cancel()
			<-ctx.Done()
		} else if ctx.Err() != nil {
			t.Errorf("%s for a client that is gone: %v", call, ctx.Err())
		}
		return ctx.Err()
	})
	if _, err := n.Prepare(ctx, "c", top); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if got := names(t, n); len(got) != 1 || len(n.fake.targets()) != 0 {
		t.Errorf("snapshots %v, mounts %v", got, n.fake.targets())
	}
}

func TestReboot(t *testing.T) {
	n := newNode(t)
	top := n.pull("base", "app")
	before := n.run("c", top)
	n.fake.reboot()
	n.restart()
	if got := n.fake.count("attach"); got != 1 {
		t.Errorf("%d attaches, the start must not wait for registries", got)
	}
	if got := n.fake.recovered; len(got) != 1 || got[0].Image.Ref != testRef || len(got[0].Image.Layers) != 2 ||
		got[0].Target != option(t, before, "lowerdir") {
		t.Errorf("to be recovered: %+v", got)
	}
	after, err := n.Mounts(t.Context(), "c")
	n.must(err)
	if fmt.Sprint(after) != fmt.Sprint(before) || len(n.fake.targets()) != 1 {
		t.Errorf("mounts %v, before %v; image at %v", after, before, n.fake.targets())
	}
}

// TestRestart: a mount in use stays, one that nobody uses goes, and so do the
// directories that have no name.
func TestRestart(t *testing.T) {
	n := newNodeWith(t, snapshot.Config{KeepIdle: true, AsyncRemove: true})
	used, idle := n.pull("used"), n.pull("idle")
	m := n.run("c", used)
	n.run("gone", idle)
	n.must(n.Remove(t.Context(), "gone"))
	n.must(os.MkdirAll(filepath.Join(n.cfg.Root, "new", "half", "fs"), 0o755))
	n.must(os.MkdirAll(filepath.Join(n.cfg.Root, "snapshots", "4711", "block", "mountpoint"), 0o755))
	n.restart()
	if got := n.fake.targets(); len(got) != 1 || got[0] != option(t, m, "lowerdir") {
		t.Errorf("images at %v", got)
	}
	if dirs, _ := filepath.Glob(filepath.Join(n.cfg.Root, "*", "*")); len(dirs) != 3 {
		t.Errorf("directories %v, want those of two images and a container", dirs)
	}
	// The mount that was found is known with its users: the last takes it along.
	n.cfg.KeepIdle = false
	n.restart()
	n.run("c2", used)
	n.must(n.Remove(t.Context(), "c2"))
	if got := n.fake.targets(); len(got) != 1 {
		t.Errorf("images at %v, one is in use since before the restart", got)
	}
	n.must(n.Remove(t.Context(), "c"))
	if got := n.fake.targets(); len(got) != 0 {
		t.Errorf("images at %v", got)
	}
}

// TestBrokenConfigs: whatever happened to the files of one image, the
// snapshotter starts, says what is wrong to those who ask, and removes it.
func TestBrokenConfigs(t *testing.T) {
	for what, c := range map[string]struct{ content, says string }{
		"missing":      {"", "no such file"},
		"torn":         {`{"repoBlobUrl":"ht`, "parsing"},
		"no layers":    {`{"lowers":[]}`, "0 layers"},
		"only a trace": {`{"lowers":[{"dir":"/x"}],"accelerationLayer":true}`, "0 layers"},
		"bad digest":   {`{"lowers":[{"digest":"sha256:zz","size":1}]}`, "digest"},
		"bad size":     {`{"lowers":[{"digest":"` + chainOf("x")[0] + `","size":-1}]}`, "size"},
		"empty layer":  {`{"lowers":[{}]}`, "neither"},
		"relative dir": {`{"lowers":[{"dir":"../.."}]}`, "absolute"},
		"lost layer":   {`{"lowers":[{"dir":"/nonexistent"}]}`, "no overlaybd.commit"},
		"huge":         {strings.Repeat(" ", 2<<20), "larger"},
	} {
		t.Run(what, func(t *testing.T) {
			n := newNode(t)
			broken, fine := n.pull("broken"), n.pull("fine")
			n.run("b", broken)
			n.run("f", fine)
			file := filepath.Join(n.cfg.Root, "snapshots", idOf(n, broken), "block", "config.v1.json")
			n.must(os.Remove(file))
			if c.content != "" {
				n.must(os.WriteFile(file, []byte(c.content), 0o600))
			}
			n.restart()
			if got := n.fake.recovered; len(got) != 1 || got[0].ID != idOf(n, fine) {
				t.Errorf("to be recovered: %+v", got)
			}
			_, err := n.Mounts(t.Context(), "f")
			n.must(err)
			if _, err := n.Mounts(t.Context(), "b"); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v does not say %q", err, c.says)
			}
			if _, err := n.Prepare(t.Context(), "b2", broken); err == nil {
				t.Error("a container of the broken image can be prepared")
			}
			n.must(clearAll(t.Context(), n))
			checkNothingLeft(t, n.cfg.Root)
		})
	}
}

func TestRemoteLayerWithoutReference(t *testing.T) {
	n := newNode(t)
	n.pull("base")
	n.must(os.Remove(filepath.Join(n.cfg.Root, "snapshots", idOf(n, chainOf("base")[0]), "image_ref")))
	if _, err := n.Prepare(t.Context(), "c", chainOf("base")[0]); err == nil || !strings.Contains(err.Error(), "image reference is not known") {
		t.Errorf("%v", err)
	}
}

func TestUsage(t *testing.T) {
	n := newNode(t)
	top := n.pull("base")
	dgst, _ := layerOf("base")
	n.fake.cache[dgst] = 12345
	if u, err := n.Usage(t.Context(), top); err != nil || u.Size != 12345 {
		t.Errorf("lazy layer: %+v, %v", u, err)
	}
	n.must(os.WriteFile(filepath.Join(n.filesOf(top), ".download"), make([]byte, 50_000), 0o644))
	if u, err := n.Usage(t.Context(), top); err != nil || u.Size < 62_000 || u.Size > 100_000 {
		t.Errorf("lazy layer that is being downloaded: %+v, %v", u, err)
	}
	m := n.run("c", top)
	n.must(os.WriteFile(filepath.Join(upperOf(t, m), "f"), make([]byte, 100_000), 0o644))
	u, err := n.Usage(t.Context(), "c")
	if err != nil || u.Size < 100_000 || u.Size > 200_000 || u.Inodes != 2 {
		t.Errorf("container: %+v, %v", u, err)
	}
	n.must(n.Commit(t.Context(), "layer", "c"))
	if committed, err := n.Usage(t.Context(), "layer"); err != nil || committed != u {
		t.Errorf("committed: %+v, %v; want %+v", committed, err, u)
	}
	if _, err := n.Usage(t.Context(), "none"); !errdefs.IsNotFound(err) {
		t.Errorf("unknown: %v", err)
	}
	n.must(n.unpack("d", "", unpackLabels([]string{"base"}, 0, labels.ImageRef, ""), map[string]string{"overlaybd.commit": lsmtMagic + strings.Repeat("x", 50_000)}))
	if u, err := n.Usage(t.Context(), "d"); err != nil || u.Size < 50_000 || u.Size > 100_000 {
		t.Errorf("downloaded layer: %+v, %v", u, err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	_, err := snapshot.New(t.Context(), snapshot.Config{Root: "relative:a", AttachTimeout: -1}, newFake(t))
	for _, says := range []string{"not an absolute", "negative", "':'"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %s", err, says)
		}
	}
}

// TestPlaceTaken: what cannot get its directory does not count as a user.
func TestPlaceTaken(t *testing.T) {
	n := newNode(t)
	top := n.pull("base")
	n.run("c1", top)
	last := filepath.Dir(filepath.Dir(n.fake.targets()[0]))
	id, err := strconv.Atoi(filepath.Base(last))
	n.must(err)
	taken := filepath.Join(n.cfg.Root, "snapshots", strconv.Itoa(id+2), "full")
	n.must(os.MkdirAll(taken, 0o700))
	if _, err := n.Prepare(t.Context(), "c2", top); err == nil {
		t.Error("a directory was replaced")
	}
	if got := names(t, n); len(got) != 2 {
		t.Errorf("snapshots %v", got)
	}
	n.must(n.Remove(t.Context(), "c1"))
	if got := n.fake.targets(); len(got) != 0 {
		t.Errorf("images at %v", got)
	}
	n.must(n.Cleanup(t.Context()))
	n.run("c2", top)
	n.must(clearAll(t.Context(), n))
	checkNothingLeft(t, n.cfg.Root)
}

// TestSecondProcess: it waits for the first, touches nothing and gives up.
func TestSecondProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		staged := filepath.Join(n.cfg.Root, "new", "in progress")
		n.must(os.Mkdir(staged, 0o755))
		_, err := snapshot.New(t.Context(), n.cfg, newFake(t))
		if err == nil || !strings.Contains(err.Error(), "another snapshotter") {
			t.Errorf("%v", err)
		}
		if _, err := os.Stat(staged); err != nil {
			t.Error(err)
		}
	})
}

// TestEmpty: containerd walks and cleans up before there is any snapshot.
func TestEmpty(t *testing.T) {
	n := newNode(t)
	n.must(n.Cleanup(t.Context()))
	if got := names(t, n); len(got) != 0 {
		t.Errorf("snapshots %v", got)
	}
	if _, err := n.Stat(t.Context(), "x"); !errdefs.IsNotFound(err) {
		t.Errorf("Stat: %v", err)
	}
	if err := n.Remove(t.Context(), "x"); !errdefs.IsNotFound(err) {
		t.Errorf("Remove: %v", err)
	}
}

// TestMany: a hundred images, each used, removed and used again at once.
func TestMany(t *testing.T) {
	n := newNode(t)
	const images, users = 100, 3
	var wg sync.WaitGroup
	for i := range images {
		top := n.pull("base", fmt.Sprint("app", i))
		for u := range users {
			wg.Go(func() {
				key := fmt.Sprintf("c-%d-%d", i, u)
				for range 3 {
					if _, err := n.Prepare(t.Context(), key, top); err != nil {
						t.Error(err)
						return
					}
					if _, err := n.Mounts(t.Context(), key); err != nil {
						t.Error(err)
					}
					if err := n.Remove(t.Context(), key); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	n.must(n.Cleanup(t.Context()))
	if got := n.fake.targets(); len(got) != 0 {
		t.Errorf("images at %v", got)
	}
	n.must(clearAll(t.Context(), n))
	checkNothingLeft(t, n.cfg.Root)
}

// TestFailuresUnderLoad: devices that fail now and then, many users at once.
func TestFailuresUnderLoad(t *testing.T) {
	for nth := 1; nth <= 5; nth++ {
		t.Run(fmt.Sprint("every ", nth), func(t *testing.T) {
			n := newNode(t)
			top := n.pull("base", "app")
			n.fake.script(everyNth(nth))
			var wg sync.WaitGroup
			for u := range 8 {
				wg.Go(func() {
					for i := range 5 {
						key := fmt.Sprintf("c-%d-%d", u, i)
						_, err := n.Prepare(t.Context(), key, top)
						if err != nil && !errors.Is(err, errInjected) {
							t.Error(err)
						}
						if err == nil {
							err = n.Remove(t.Context(), key)
							if err != nil {
								t.Error(err)
							}
						}
					}
				})
			}
			wg.Wait()
			if got := namesWith(t, n, "kind!=committed"); len(got) != 0 {
				t.Errorf("snapshots %v are left", got)
			}
			n.fake.script(nil)
			n.must(n.Cleanup(t.Context()))
			if got := n.fake.targets(); len(got) != 0 {
				t.Errorf("images at %v", got)
			}
			n.must(clearAll(t.Context(), n))
			checkNothingLeft(t, n.cfg.Root)
		})
	}
}

// idOf returns the id of a committed image snapshot: the name of its directory.
func idOf(n *node, name string) string {
	n.t.Helper()
	ref, err := n.Stat(context.Background(), name)
	n.must(err)
	if ref.Kind != snapshots.KindCommitted {
		m, err := n.Mounts(context.Background(), name)
		n.must(err)
		if ref.Kind == snapshots.KindActive {
			return filepath.Base(filepath.Dir(upperOf(n.t, m)))
		}
		lowers := strings.Split(option(n.t, m, "lowerdir"), ":")
		return filepath.Base(filepath.Dir(lowers[len(lowers)-1]))
	}
	dirs, err := filepath.Glob(filepath.Join(n.cfg.Root, "snapshots", "*", "block", "config.v1.json"))
	n.must(err)
	for _, d := range dirs {
		data, err := os.ReadFile(d)
		n.must(err)
		var c struct{ Lowers []struct{ Digest string } }
		if json.Unmarshal(data, &c) != nil || len(c.Lowers) == 0 {
			continue // broken by a test
		}
		if c.Lowers[len(c.Lowers)-1].Digest == ref.Labels[labels.BlobDigest] {
			return filepath.Base(filepath.Dir(filepath.Dir(d)))
		}
	}
	n.t.Fatalf("no directory for %s", name)
	return ""
}

var _ snapshots.Cleaner = (*node)(nil)

// A layer that was downloaded is found where attach was told to put it, by its
// own image and by those on top of it, and the registry is not needed then.
func TestDownloadedLayerIsFound(t *testing.T) {
	n := newNode(t)
	n.pull("base", "app")
	chain := chainOf("base", "app")
	file := filepath.Join(n.filesOf(chain[0]), backstore.LayerFile)
	n.must(os.WriteFile(file, []byte("a whole blob"), 0o600))
	n.run("c", chain[1])
	layers := n.fake.image(n.fake.targets()[0]).Layers
	if layers[0].File != file || layers[0].Remote() {
		t.Errorf("the downloaded layer is %+v, want file %s", layers[0], file)
	}
	if !layers[1].Remote() || layers[1].Dir != n.filesOf(chain[1]) {
		t.Errorf("the other layer is %+v, want directory %s", layers[1], n.filesOf(chain[1]))
	}
}

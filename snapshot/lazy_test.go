package snapshot_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

func TestLazyImage(t *testing.T) {
	for style, more := range map[string][]string{
		"rpull and nerdctl": nil,
		"CRI": {labels.ImageRef, "", labels.CRIImageRef, testRef,
			"containerd.io/snapshot/cri.layer-digest", "sha256:00", "containerd.io/snapshot/cri.image-layers", "x"},
	} {
		t.Run(style, func(t *testing.T) {
			n := newNode(t)
			names := []string{"base", "app"}
			for i := range names {
				if err := n.pullLayer(names, i, append(slices.Clone(more), labels.FSType, "ext4")...); !errdefs.IsAlreadyExists(err) {
					t.Fatalf("layer %d: %v", i, err)
				}
				info, err := n.Stat(t.Context(), chainOf(names...)[i])
				if err != nil {
					t.Fatal(err)
				}
				if info.Kind != snapshots.KindCommitted || info.Parent != parentOf(names, i) ||
					info.Labels[labels.Remote] != labels.RemoteValue || info.Labels[labels.Target] != info.Name {
					t.Errorf("layer %d is %+v", i, info)
				}
			}
			if len(n.fake.calls) > 0 {
				t.Errorf("a pull called devices: %v", n.fake.calls)
			}

			m := n.run("container", chainOf(names...)[1])
			target := option(t, m, "lowerdir")
			want := backstore.Image{Ref: testRef, FSType: "ext4"}
			for i, name := range names {
				dgst, size := layerOf(name)
				want.Layers = append(want.Layers, backstore.Layer{Digest: dgst, Size: size, Dir: n.filesOf(chainOf(names...)[i])})
			}
			if got := n.fake.image(target); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("attached %+v\nwant     %+v", got, want)
			}
			if m[0].Type != "overlay" || filepath.Dir(option(t, m, "upperdir")) != filepath.Dir(option(t, m, "workdir")) {
				t.Errorf("mounts %v", m)
			}
			checkConfig(t, target, names)
		})
	}
}

// checkConfig compares the file with what upstream's backstore expects.
func checkConfig(t *testing.T, target string, names []string) {
	t.Helper()
	c, ref := config(t, target)
	if ref != testRef || c["repoBlobUrl"] != "https://registry.example:5000/v2/team/app/blobs" {
		t.Errorf("image_ref %q, repoBlobUrl %v", ref, c["repoBlobUrl"])
	}
	for i, name := range names {
		dgst, size := layerOf(name)
		l := c["lowers"].([]any)[i].(map[string]any)
		if l["digest"] != dgst.String() || l["size"] != float64(size) {
			t.Errorf("lower %d is %v", i, l)
		}
	}
}

func TestDockerHubURL(t *testing.T) {
	n := newNode(t)
	n.pullLayer([]string{"a"}, 0, labels.ImageRef, "docker.io/library/redis:7")
	n.run("c", chainOf("a")[0])
	c, ref := config(t, n.fake.targets()[0])
	if c["repoBlobUrl"] != "https://registry-1.docker.io/v2/library/redis/blobs" || ref != "docker.io/library/redis:7" {
		t.Errorf("repoBlobUrl %v, image_ref %s", c["repoBlobUrl"], ref)
	}
}

func TestLazyLayerTwice(t *testing.T) {
	n := newNode(t)
	n.pull("base", "app")
	n.pull("base", "app")
	n.pull("base", "other")
	if got := names(t, n); len(got) != 3 {
		t.Errorf("snapshots %v, want base, app and other", got)
	}
}

func TestConcurrentPulls(t *testing.T) {
	n := newNode(t)
	layers := []string{"l0", "l1", "l2", "l3", "l4"}
	var wg sync.WaitGroup
	for p := range 8 {
		wg.Go(func() {
			for i := range layers {
				key := fmt.Sprintf("extract-%d-%d", p, i)
				_, err := n.Prepare(t.Context(), key, parentOf(layers, i), snapshots.WithLabels(unpackLabels(layers, i)))
				if !errdefs.IsAlreadyExists(err) {
					t.Errorf("puller %d, layer %d: %v", p, i, err)
				}
			}
		})
	}
	wg.Wait()
	if got := names(t, n); len(got) != len(layers) {
		t.Errorf("snapshots %v", got)
	}
	n.must(clearAll(t.Context(), n))
	checkNothingLeft(t, n.cfg.Root)
}

// TestSharedTarget: the parent may differ where containerd's namespaces have
// unpacked the lower layers each for itself.
func TestSharedTarget(t *testing.T) {
	n := newNode(t)
	n.pull("base", "app")
	names := []string{"base", "app"}
	lbls := unpackLabels(names, 0, labels.ImageRef, "")
	n.must(n.unpack("ns2/1/base", "", lbls, map[string]string{"overlaybd.commit": lsmtMagic}))
	for range 2 {
		_, err := n.Prepare(t.Context(), "ns2/2/extract", "ns2/1/base", snapshots.WithLabels(unpackLabels(names, 1)))
		if !errdefs.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	found := 0
	for _, name := range namesWith(t, n, `parent=="ns2/1/base"`) {
		info, err := n.Stat(t.Context(), name)
		n.must(err)
		if info.Labels[labels.Target] == chainOf(names...)[1] {
			found++
		}
	}
	if found != 1 {
		t.Errorf("%d snapshots have the target label and the parent containerd looks for", found)
	}
}

func TestBadRequests(t *testing.T) {
	n := newNode(t)
	top := n.pull("base")
	layers := []string{"base", "app"}
	for name, c := range map[string]struct {
		more  []string
		is    func(error) bool
		says  string
		layer int
	}{
		"turbo":      {[]string{labels.TurboDigest, chainOf("x")[0]}, errdefs.IsNotImplemented, "TurboOCI", 1},
		"fastoci":    {[]string{labels.TurboDigestOld, chainOf("x")[0]}, errdefs.IsNotImplemented, "TurboOCI", 1},
		"digest":     {[]string{labels.BlobDigest, "sha256:1"}, errdefs.IsInvalidArgument, labels.BlobDigest, 1},
		"diff ID":    {[]string{labels.BlobDigest, chainOf("x")[0]}, errdefs.IsInvalidArgument, "diff ID", 1},
		"size":       {[]string{labels.BlobSize, "0"}, errdefs.IsInvalidArgument, labels.BlobSize, 1},
		"lone trace": {[]string{labels.Trace, "yes"}, errdefs.IsFailedPrecondition, "no overlaybd layer below", 0},
	} {
		t.Run(name, func(t *testing.T) {
			err := n.pullLayer(layers, c.layer, c.more...)
			if !c.is(err) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v does not say %q or is of another class", err, c.says)
			}
		})
	}
	for _, l := range []map[string]string{{labels.Writable: "dir"}, {labels.Writable: "dev"}} {
		if _, err := n.Prepare(t.Context(), "c", top, snapshots.WithLabels(l)); !errdefs.IsNotImplemented(err) {
			t.Errorf("%v: %v", l, err)
		}
	}
	if err := n.pullLayer([]string{"missing", "app"}, 1); !errdefs.IsNotFound(err) {
		t.Errorf("missing parent: %v", err)
	}
	_, err := n.Prepare(t.Context(), "active", "")
	n.must(err)
	if _, err := n.Prepare(t.Context(), "x", "active", snapshots.WithLabels(unpackLabels(layers, 1))); !errdefs.IsInvalidArgument(err) {
		t.Errorf("active parent: %v", err)
	}
	if got := names(t, n); len(got) != 2 {
		t.Errorf("snapshots %v are left, want base and active", got)
	}
	n.must(clearAll(t.Context(), n))
	checkNothingLeft(t, n.cfg.Root)
}

func TestTooManyLayers(t *testing.T) {
	n := newNode(t)
	var layers []string
	for i := range backstore.MaxLayers {
		layers = append(layers, fmt.Sprint(i))
	}
	n.pull(layers...)
	err := n.pullLayer(append(layers, "one more"), len(layers))
	if err == nil || errors.Is(err, errdefs.ErrAlreadyExists) || !strings.Contains(err.Error(), "256 layers") {
		t.Errorf("256th layer: %v", err)
	}
}

func names(t *testing.T, s snapshots.Snapshotter) []string {
	t.Helper()
	return namesWith(t, s)
}

// Where the chunk table of a layer is said to be, and what the image's manifest
// is, gets to who opens it, also
// after a restart and for the image on top.
func TestChunkTable(t *testing.T) {
	n := newNode(t)
	table := labels.WithChunks(chunks.Ref{Root: digest.FromString("root"), Offset: 512, Size: 100})
	var more []string
	for k, v := range table {
		more = append(more, k, v)
	}
	layers := []string{"base", "app"}
	manifest := digest.FromString("manifest")
	more = append(more, labels.ManifestDigest, manifest.String())
	for i, extra := range [][]string{more, {labels.ManifestDigest, manifest.String()}} {
		if err := n.pullLayer(layers, i, extra...); !errdefs.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	n.restart()
	n.run("c", chainOf(layers...)[1])
	got := n.fake.image(n.fake.targets()[0]).Layers
	top := map[string]string{labels.ManifestDigest: manifest.String()}
	maps.Copy(table, top)
	if !maps.Equal(got[0].Descriptor().Annotations, table) || !maps.Equal(got[1].Annotations, top) {
		t.Errorf("annotations %v and %v, want %v and %v", got[0].Annotations, got[1].Annotations, table, top)
	}
	for key, value := range map[string]string{labels.ChunksRoot: "", labels.ChunksOffset: "513"} {
		if err := n.pullLayer([]string{"broken"}, 0, append(slices.Clone(more), key, value)...); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "reprise.chunks-") {
			t.Errorf("%s = %q: %v", key, value, err)
		}
	}
}

// TestChunkTableOfADownload: what is recorded of a file is for nodes without it. A
// table that can't be is no reason to refuse a file with the right digest.
func TestChunkTableOfADownload(t *testing.T) {
	n := newNode(t)
	table := labels.WithChunks(chunks.Ref{Root: digest.FromString("root"), Offset: 512, Size: 100})
	layers := []string{"base", "app"}
	for i, offset := range []string{table[labels.ChunksOffset], "7"} {
		lbls := unpackLabels(layers, i, labels.Download, "download")
		maps.Copy(lbls, table)
		lbls[labels.ChunksOffset] = offset
		n.must(n.unpack(chainOf(layers...)[i], parentOf(layers, i), lbls, map[string]string{"overlaybd.commit": zfileMagic}))
	}
	n.restart()
	got := n.below("c", chainOf(layers...)[1]).Layers
	if got[0].Remote() || !maps.Equal(got[0].Annotations, table) || len(got[1].Annotations) != 0 {
		t.Errorf("layers %+v, want files, the first with %v", got, table)
	}
	// It stays a file, whatever a later pull says of its table.
	other := []string{labels.ChunksRoot, digest.FromString("other").String(), labels.ChunksOffset, "512", labels.ChunksSize, "76"}
	if err := n.pullLayer(layers, 0, other...); !errdefs.IsAlreadyExists(err) {
		t.Errorf("pulled again with another table: %v", err)
	}
}

// A pull that states something else of a layer than the first one did is refused
// if it could be read by what is not its own image's word.
func TestPullsDisagree(t *testing.T) {
	table := func(root string) []string {
		return []string{labels.ChunksRoot, digest.FromString(root).String(), labels.ChunksOffset, "512", labels.ChunksSize, "76"}
	}
	const evil = "evil.example/base:1"
	longer := append(table("honest"), labels.ChunksSize, "77")
	// A containerd that states no diff ID lets it in.
	other := []string{labels.BlobDigest, digest.FromString("other").String(), labels.DiffID, ""}
	for name, c := range map[string]struct {
		first, second []string
		says          []string // none: it is taken
	}{
		"the same":           {table("honest"), table("honest"), nil},
		"another table":      {table("evil"), table("honest"), []string{digest.FromString("evil").String(), digest.FromString("honest").String()}},
		"another size of it": {table("honest"), longer, []string{"76 bytes", "77 bytes"}},
		"none at first":      {nil, table("honest"), []string{"no chunk table", digest.FromString("honest").String()}},
		"none any more":      {table("honest"), nil, nil},
		"another blob":       {other, nil, []string{other[1]}},
		"another size":       {[]string{labels.BlobSize, "77"}, nil, []string{"77 bytes"}},
		"never had table":    {nil, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			layers := []string{"base"}
			if err := n.pullLayer(layers, 0, append(slices.Clone(c.first), labels.ImageRef, evil)...); !errdefs.IsAlreadyExists(err) {
				t.Fatal(err)
			}
			err := n.pullLayer(layers, 0, c.second...)
			if c.says == nil {
				if !errdefs.IsAlreadyExists(err) {
					t.Errorf("refused: %v", err)
				}
				return
			}
			dgst, _ := layerOf("base")
			for _, part := range append(c.says, evil, dgst.String(), "remove the image") {
				if !errdefs.IsFailedPrecondition(err) || errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), part) {
					t.Errorf("%v does not say %q or is of another class", err, part)
				}
			}
			n.must(clearAll(t.Context(), n))
			if err := n.pullLayer(layers, 0, c.second...); !errdefs.IsAlreadyExists(err) {
				t.Errorf("after the first image was removed: %v", err)
			}
		})
	}
	t.Run("downloaded", func(t *testing.T) {
		n := newNode(t)
		layers := []string{"base"}
		n.must(firstOther(n.pullLayer(layers, 0, table("evil")...)))
		dirs, err := filepath.Glob(filepath.Join(n.cfg.Root, "snapshots", "*", "fs"))
		if err != nil || len(dirs) != 1 {
			t.Fatalf("directories %v, %v", dirs, err)
		}
		n.must(os.WriteFile(filepath.Join(dirs[0], backstore.LayerFile), []byte(lsmtMagic), 0o600))
		n.must(firstOther(n.pullLayer(layers, 0, table("honest")...)))
	})
	t.Run("unpacked", func(t *testing.T) {
		n := newNode(t)
		layers := []string{"base"}
		n.must(n.unpack(chainOf(layers...)[0], "", unpackLabels(layers, 0, labels.ImageRef, ""), map[string]string{"overlaybd.commit": lsmtMagic}))
		n.must(firstOther(n.pullLayer(layers, 0, table("honest")...)))
	})
}

// firstOther returns err unless it says that the layer is there.
func firstOther(err error) error {
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return cmp.Or(err, errors.New("no answer"))
}

// TestConcurrentPullsDisagree: whoever comes second is refused, however close.
func TestConcurrentPullsDisagree(t *testing.T) {
	n := newNode(t)
	layers := []string{"base"}
	var wg sync.WaitGroup
	var refused atomic.Int64
	const pulls = 8
	for i := range pulls {
		wg.Go(func() {
			table := labels.WithChunks(chunks.Ref{Root: digest.FromString(fmt.Sprint(i)), Offset: 512, Size: 100})
			l := unpackLabels(layers, 0)
			maps.Copy(l, table)
			_, err := n.Prepare(t.Context(), fmt.Sprintf("extract-%d", i), "", snapshots.WithLabels(l))
			if errdefs.IsFailedPrecondition(err) && !errdefs.IsAlreadyExists(err) {
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	if refused.Load() != pulls-1 {
		t.Errorf("%d of %d pulls were refused", refused.Load(), pulls)
	}
}

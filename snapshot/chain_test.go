package snapshot_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/reprise-containers/reprise/snapshot/labels"
)

// plainLabels are those of a layer without overlaybd annotations.
func plainLabels(target string) map[string]string {
	return map[string]string{labels.Target: target}
}

func TestTraceLayer(t *testing.T) {
	n := newNode(t)
	names := []string{"base", "trace"}
	n.pull("base")
	trace := chainOf(names...)[1]
	n.must(n.unpack(trace, chainOf("base")[0], unpackLabels(names, 1, labels.Trace, "yes", labels.FSType, "ext4"), map[string]string{"trace": "records"}))
	if len(n.fake.calls) > 0 {
		t.Errorf("unpacking a trace called devices: %v", n.fake.calls)
	}

	target := option(t, n.run("c", trace), "lowerdir")
	img := n.fake.image(target)
	if len(img.Layers) != 1 || img.FSType != "ext4" {
		t.Errorf("attached %+v, want the base layer alone", img)
	}
	if got, err := os.ReadFile(filepath.Join(img.Trace.Dir, "trace")); err != nil || string(got) != "records" {
		t.Errorf("trace is %q, %v", got, err)
	}
	if c, _ := config(t, target); c["accelerationLayer"] != true || len(c["lowers"].([]any)) != 2 {
		t.Errorf("configuration %v", c)
	}

	// A layer on top of a trace drops the trace, it was recorded without it.
	all := []string{"base", "trace", "app"}
	if err := n.pullLayer(all, 2); !errdefs.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	img = n.fake.image(option(t, n.run("c2", chainOf(all...)[2]), "lowerdir"))
	if app, _ := layerOf("app"); len(img.Layers) != 2 || img.Layers[1].Digest != app || img.Trace != nil {
		t.Errorf("above a trace: %+v", img)
	}
}

func TestTraceLayerWithoutTrace(t *testing.T) {
	for what, prepare := range map[string]func(dir string) error{
		"missing": func(string) error { return nil },
		"symlink": func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "trace")) },
	} {
		t.Run(what, func(t *testing.T) {
			n := newNode(t)
			names := []string{"base", "trace"}
			n.pull("base")
			opt := snapshots.WithLabels(unpackLabels(names, 1, labels.Trace, "yes"))
			m, err := n.Prepare(t.Context(), "x", chainOf("base")[0], opt)
			n.must(err)
			n.must(prepare(m[0].Source))
			n.must(n.Commit(t.Context(), "top", "x", opt))
			if img := n.fake.image(option(t, n.run("c", "top"), "lowerdir")); img.Trace != nil || len(img.Layers) != 1 {
				t.Errorf("attached %+v", img)
			}
		})
	}
}

func TestUnpackedLayers(t *testing.T) {
	tarred := make([]byte, 2048)
	copy(tarred[257:], "ustar\x0000")
	tarred[156] = 'x'
	copy(tarred[1536:], zfileMagic)
	plainTar := make([]byte, 1024)
	copy(plainTar[257:], "ustar\x0000")
	copy(plainTar[512:], lsmtMagic)
	for what, content := range map[string]string{
		"LSMT": lsmtMagic, "ZFile": zfileMagic, "pax tar": string(tarred), "plain tar": string(plainTar),
	} {
		t.Run(what, func(t *testing.T) {
			n := newNode(t)
			names := []string{"base", "app"}
			// The lowest layer has annotations but no image reference, the next
			// has lost its annotations, the topmost all labels.
			files := map[string]string{"overlaybd.commit": content, "overlaybd.chunks": "table"}
			n.must(n.unpack("b", "", unpackLabels(names, 0, labels.ImageRef, ""), files))
			n.must(n.unpack("a", "b", plainLabels("a"), files))
			n.must(n.unpack("bare", "a", nil, files))
			img := n.fake.image(option(t, n.run("c", "bare"), "lowerdir"))
			if len(img.Layers) != 3 || img.Ref != "" {
				t.Fatalf("attached %+v", img)
			}
			for i, l := range img.Layers {
				if got, err := os.ReadFile(l.File); err != nil || string(got) != content {
					t.Errorf("layer %d: file %q: %v", i, l.File, err)
				}
			}
			if base, size := layerOf("base"); img.Layers[0].Digest != base || img.Layers[0].Size != size {
				t.Errorf("layer 0 is %+v", img.Layers[0])
			}
		})
	}
}

func TestDownloadOnLazyLayer(t *testing.T) {
	n := newNode(t)
	names := []string{"base", "app"}
	n.pull("base")
	n.must(n.unpack("a", chainOf("base")[0], unpackLabels(names, 1, labels.Download, "download"), map[string]string{"overlaybd.commit": zfileMagic}))
	img := n.fake.image(option(t, n.run("c", "a"), "lowerdir"))
	if len(img.Layers) != 2 || !img.Layers[0].Remote() || img.Layers[1].Remote() || img.Ref != testRef {
		t.Errorf("attached %+v", img)
	}
}

func TestAnnotatedLayerThatIsNone(t *testing.T) {
	for what, files := range map[string]map[string]string{
		"no file":   {"etc": "x"},
		"no magic":  {"overlaybd.commit": "hello"},
		"empty":     {"overlaybd.commit": ""},
		"short tar": {"overlaybd.commit": strings.Repeat("\x00", 257) + "ustar\x0000" + strings.Repeat("\x00", 260)},
	} {
		t.Run(what, func(t *testing.T) {
			n := newNode(t)
			err := n.unpack("b", "", unpackLabels([]string{"base"}, 0, labels.ImageRef, ""), files)
			if dgst, _ := layerOf("base"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), dgst.String()) {
				t.Errorf("%v does not name the layer or is of another class", err)
			}
			n.must(clearAll(t.Context(), n))
			checkNothingLeft(t, n.cfg.Root)
		})
	}
}

// TestOrdinaryLayers: only a layer that is nothing but overlaybd is one.
func TestOrdinaryLayers(t *testing.T) {
	n := newNode(t)
	n.must(n.unpack("one", "", plainLabels("one"), map[string]string{"overlaybd.commit": lsmtMagic, "bin": "x"}))
	n.must(n.unpack("two", "one", plainLabels("two"), map[string]string{"f": "2"}))
	// A container cannot make a layer of itself.
	m := n.run("c", "two")
	n.must(os.WriteFile(filepath.Join(upperOf(t, m), "overlaybd.commit"), []byte(lsmtMagic), 0o644))
	n.must(n.Commit(t.Context(), "three", "c"))

	lowers := strings.Split(option(t, n.run("d", "three"), "lowerdir"), ":")
	if len(lowers) != 3 {
		t.Fatalf("lowerdir %v", lowers)
	}
	for i, file := range []string{"overlaybd.commit", "f", "bin"} {
		if _, err := os.Stat(filepath.Join(lowers[i], file)); err != nil {
			t.Error(err)
		}
	}
	v, err := n.View(t.Context(), "v", "one")
	n.must(err)
	if v[0].Type != "bind" || v[0].Options[0] != "ro" || v[0].Source != lowers[2] {
		t.Errorf("view %v", v)
	}
	if len(n.fake.calls) > 0 {
		t.Errorf("ordinary layers called devices: %v", n.fake.calls)
	}
}

func TestMixedChain(t *testing.T) {
	n := newNode(t)
	base := n.pull("base")
	// As nerdctl commit does: a container's changes become an ordinary layer.
	n.must(n.unpack("p1", base, plainLabels("p1"), map[string]string{"one": "1"}))
	n.must(n.unpack("p2", "p1", plainLabels("p2"), map[string]string{"two": "2"}))

	lowers := strings.Split(option(t, n.run("c", "p2"), "lowerdir"), ":")
	if len(lowers) != 3 || lowers[2] != n.fake.targets()[0] {
		t.Fatalf("lowerdir %v, image at %v", lowers, n.fake.targets())
	}
	for i, file := range []string{"two", "one"} {
		if _, err := os.Stat(filepath.Join(lowers[i], file)); err != nil {
			t.Error(err)
		}
	}
	v, err := n.View(t.Context(), "v", "p1")
	n.must(err)
	if got := option(t, v, "lowerdir"); got != strings.Join(lowers[1:], ":") {
		t.Errorf("view has lowerdir %s", got)
	}
	v, err = n.View(t.Context(), "v2", base)
	n.must(err)
	if v[0].Type != "bind" || v[0].Source != lowers[2] || v[0].Options[0] != "ro" {
		t.Errorf("view of the image itself: %v", v)
	}
	if got := n.fake.targets(); len(got) != 1 {
		t.Errorf("the image is mounted at %v, want one mount for all", got)
	}

	t.Run("overlaybd above ordinary", func(t *testing.T) {
		names := []string{"base", "app"}
		for what, l := range map[string]map[string]string{
			"lazy":     unpackLabels(names, 1),
			"download": unpackLabels(names, 1, labels.ImageRef, ""),
			"trace":    unpackLabels(names, 1, labels.Trace, "yes"),
			"sniffed":  plainLabels("z"),
		} {
			err := n.unpack("z", "p2", l, map[string]string{"overlaybd.commit": lsmtMagic})
			if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "ordinary layer p2") {
				t.Errorf("%s: %v", what, err)
			}
			if what == "sniffed" {
				n.must(n.Remove(t.Context(), "extract-1 z"))
			}
		}
	})
}

// TestParentGivenAtCommit: rebase isn't announced, but an ordinary or
// downloaded layer can be given its parent late.
func TestParentGivenAtCommit(t *testing.T) {
	n := newNode(t)
	base := n.pull("base")
	names := []string{"base", "app"}
	opt := snapshots.WithLabels(unpackLabels(names, 1, labels.Download, "download"))
	m, err := n.Prepare(t.Context(), "x", "", opt)
	n.must(err)
	n.must(os.WriteFile(filepath.Join(m[0].Source, "overlaybd.commit"), []byte(lsmtMagic), 0o644))
	n.must(n.Commit(t.Context(), "a", "x", opt, snapshots.WithParent(base)))
	if img := n.fake.image(option(t, n.run("c", "a"), "lowerdir")); len(img.Layers) != 2 {
		t.Errorf("attached %+v", img)
	}
}

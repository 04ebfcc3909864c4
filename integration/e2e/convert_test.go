package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/loopdev"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/tree"
)

// TestConvert converts real images of several layers in a registry and compares
// the whole root file system, file by file, with the one that containerd and
// overlayfs make of the original: as a view and as a container's root that the
// snapshotter mounts lazily, and as the kernel sees the merged device.
func TestConvert(t *testing.T) {
	for _, c := range []struct {
		image  image.Layered
		stdout string
		config map[string]string
	}{
		{image: image.Middle(), stdout: "layer 1\nlayer 2\nlayer 3\nlayer 5\ndone\n"},
		{image: image.Odd()},
		// Thirty thousand requests for it would be minutes of the test
		// registry: the rest comes in the background, as on a node.
		{image: largest(), stdout: "scipy 1.10.1 x0 = 0.5\n", config: eager},
	} {
		t.Run(c.image.Name, func(t *testing.T) {
			t.Parallel()
			n := ownNode(t, node.Options{Config: c.config})
			source, target := "originals/"+c.image.Name+":1", "converted/"+c.image.Name+":1"
			n.push(t, layered(t, c.image), source)
			want, u := n.original(t, source)
			checkOriginal(t, c.image.Name, want)
			n.convert(t, source, target)

			n.Proxy.Reset()
			begin := time.Now()
			ref := n.rpull(t, target)
			out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "converted-"+c.image.Name)
			if err != nil || c.stdout != "" && out != c.stdout {
				t.Errorf("the image's command printed %q, %v; want %q", out, err, c.stdout)
			}
			start := n.Proxy.Stats()
			t.Logf("pull and command: %v, %d requests, %d bytes", time.Since(begin), start.Requests, start.Bytes)
			reportDifferences(t, want, n.records(t, ref, lazyView, func() {
				if c.config != nil {
					n.awaitMetric(t, "reprise_images_local", 1)
				}
			}), u)
			t.Logf("with the whole tree: %v, %d requests", time.Since(begin), n.Proxy.Stats().Requests)
			reportDifferences(t, want, n.records(t, ref, lazyContainer), u)
			reportDifferences(t, want, n.deviceRecords(t, target), u)
		})
	}
}

// convert converts an image of the registry to another one there.
func (n machine) convert(t *testing.T, source, target string, flags ...string) node.Conversion {
	t.Helper()
	begin := time.Now()
	c, err := n.Convert(t.Context(), n.Registry.Address+"/"+source, n.Registry.Address+"/"+target, flags...)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Layers()) == 0 {
		t.Fatalf("the conversion of %s reports no layers: %+v", source, c)
	}
	t.Logf("%s converted in %v", source, time.Since(begin))
	return c
}

// deviceRecords writes the merged device of a converted image to a file, has
// fsck.erofs look at it, mounts it and returns what is in it.
func (n machine) deviceRecords(t *testing.T, name string) []tree.Record {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "disk.img")
	if _, err := n.Run(t.Context(), n.Path("bin/reprise"), "dump", n.Registry.Address+"/"+name, "-o", disk); err != nil {
		t.Fatal(err)
	}
	checkErofs(t.Context(), t, disk)
	return mounted(t, disk)
}

// mounted lists the erofs file system in a file.
func mounted(t *testing.T, disk string) []tree.Record {
	t.Helper()
	dev, err := loopdev.AttachBuffered(disk, 1024)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Detach() //nolint:errcheck // the mount shows whether it works
	dir := t.TempDir()
	if err := unix.Mount(dev.Path, dir, "erofs", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, 0) //nolint:errcheck // the next mount would fail
	records, err := tree.Walk(dir)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// checkErofs runs Debian's fsck.erofs on a disk image.
func checkErofs(ctx context.Context, t *testing.T, disk string) {
	t.Helper()
	cmd := exec.CommandContext(ctx, "fsck.erofs", "--extract", disk)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("fsck.erofs: %v: %s", err, out)
	}
}

// mostDifferences is how many are worth printing.
const mostDifferences = 40

func reportDifferences(t *testing.T, want, got []tree.Record, u tree.Unpacking) {
	t.Helper()
	found := tree.Compare(want, got, u)
	for i, d := range found {
		if i == mostDifferences {
			t.Errorf("and %d more", len(found)-i)
			break
		}
		t.Error(d)
	}
	t.Logf("compared %d files: %d differences", len(want), len(found))
}

// TestConvertRefused converts what containerd's overlayfs snapshotter does not
// unpack, and compares with what the OCI image specification says of it.
func TestConvertRefused(t *testing.T) {
	n := onNode(t)
	n.push(t, layered(t, image.Refused()), "originals/refused:1")
	n.convert(t, "originals/refused:1", "converted/refused:1")
	got := map[string]tree.Record{}
	for _, r := range n.records(t, n.rpull(t, "converted/refused:1"), lazyView) {
		if rest, found := strings.CutPrefix(r.Path, "/odd/"); found {
			got[rest] = r
		}
	}
	for name, want := range map[string]string{
		// Linking to a file of a lower layer brings that file up.
		"lower": "lower", "link-to-lower": "lower",
		// A whiteout hides what lower layers have, wherever it stands.
		"other": "upper", "dir/new": "upper",
	} {
		if r := got[name]; r.Sum != textSum(want) {
			t.Errorf("%s has mode %o and the sum %s, want that of %q", name, r.Mode, r.Sum, want)
		}
	}
	if a, b := got["lower"], got["link-to-lower"]; a.SameAs == "" || a.SameAs != b.SameAs || a.Nlink != 2 {
		t.Errorf("lower and link-to-lower are no links to one file: %+v %+v", a, b)
	}
	if r, found := got["dir/old"]; found {
		t.Errorf("dir/old is not hidden by the whiteout of dir: %+v", r)
	}
	const big, small = 256 << 20, 3 << 20
	for name, want := range map[string]struct {
		size int64
		sum  string
	}{
		"sparse/gnu":      {big, sparseSum(big, 0, 5<<20, 100<<20+4000, big-20)},
		"sparse/gnu-many": {small, sparseSum(small, everyOther(small)...)},
	} {
		if r := got[name]; r.Size != want.size || r.Sum != want.sum {
			t.Errorf("%s has %d bytes with the sum %s, want %d with %s", name, r.Size, r.Sum, want.size, want.sum)
		}
	}
}

package e2e_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/tree"
)

// goldenImages were made by the original tools; all three show the same files.
var goldenImages = []string{"busybox-obd", "busybox-obd-zstd", "busybox-obd-trace"}

// TestGoldenImages pulls each golden image lazily from a real registry, and
// compares its root file system with what the kernel shows of the reference
// device, and what its command prints.
func TestGoldenImages(t *testing.T) {
	n := onNode(t)
	dir := golden(t)
	want := readLines(t, filepath.Join(dir, "rootfs.tsv"))[1:]
	stdout, err := os.ReadFile(filepath.Join(dir, "stdout.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range goldenImages {
		t.Run(name, func(t *testing.T) {
			n.push(t, image.Layout{Dir: filepath.Join(dir, name)}, "golden/"+name+":1")
			n.Proxy.Reset()
			ref := n.rpull(t, "golden/"+name+":1")
			pull := n.Proxy.Stats()
			out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", ref, t.Name()[len("TestGoldenImages/"):])
			if err != nil || out != string(stdout) {
				t.Errorf("the image's command printed %q, %v; want %q", out, err, stdout)
			}
			run := n.Proxy.Stats()
			t.Logf("pull: %d requests, %d bytes; with the command: %d requests, %d bytes",
				pull.Requests, pull.Bytes, run.Requests, run.Bytes)
			compareTrees(t, n.viewTree(t, ref), want)
		})
	}
}

// viewTree lists the root file system of an image through a read-only view.
func (n machine) viewTree(t *testing.T, ref string) []string {
	t.Helper()
	target := t.TempDir()
	n.ctr(t, "image", "mount", "--snapshotter", "overlaybd", ref, target)
	defer n.ctr(t, "image", "unmount", "--snapshotter", "overlaybd", "--rm", target)
	lines, err := tree.List(target)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func compareTrees(t *testing.T, got, want []string) {
	t.Helper()
	slices.Sort(want)
	if slices.Equal(got, want) {
		return
	}
	t.Errorf("the root file system has %d files, want %d", len(got), len(want))
	differences := 0
	for _, l := range want {
		if _, found := slices.BinarySearch(got, l); !found && differences < 10 {
			t.Errorf("missing: %.300s", l)
			differences++
		}
	}
	for _, l := range got {
		if _, found := slices.BinarySearch(want, l); !found && differences < 20 {
			t.Errorf("not expected: %.300s", l)
			differences++
		}
	}
}

func readLines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

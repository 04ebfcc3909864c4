package e2e_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/sandbox"
	"github.com/reprise-containers/reprise/integration/tree"
)

// built returns a test image, made on first use and kept between runs.
func built(t *testing.T, b image.Build) image.Layout {
	t.Helper()
	tools, err := sandbox.FindTools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l, err := b.Make(t.Context(), filepath.Join(tools.Cache, "images"), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// rootfs returns the folder a test image was made from.
func rootfs(t *testing.T, r image.Rootfs) string {
	t.Helper()
	tools, err := sandbox.FindTools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := r.Build(t.Context(), filepath.Join(tools.Cache, "images"), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// sums returns what `sha256sum` prints for every regular file below root,
// sorted by path.
func sums(t *testing.T, root string) []string {
	t.Helper()
	lines, err := tree.List(root)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, l := range lines {
		f := strings.Split(l, "\t")
		if strings.HasPrefix(f[1], "10") {
			out = append(out, f[5]+"  "+f[0])
		}
	}
	return out
}

// sumScript prints the sum of every file of a container's root.
const sumScript = `find / -xdev -type f -print0 | xargs -0 sha256sum`

// small is a three-layer image of a shell.
var small = image.Build{Name: "small", Rootfs: image.Small(), Format: image.Overlaybd{FSType: image.Ext4}, Changes: 2,
	Args: []string{"/bin/sh", "-c", "cat /etc/layers; echo done"}}

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
)

// circumstance is what a conversion must not depend on.
type circumstance struct {
	name  string
	flags []string
	env   []string
	umask int
	user  bool // not root
	host  bool // another host name
	touch bool // the source's files have other times
	pull  bool // the source is in the registry, not in a layout
}

var circumstances = []circumstance{
	{name: "plain"},
	{name: "one worker", flags: []string{"--workers", "1", "--concurrency", "1"}, env: []string{"GOMAXPROCS=1"}},
	{name: "eight workers", flags: []string{"--workers", "8", "--concurrency", "8"}, env: []string{"GOMAXPROCS=8"}},
	{name: "another place and time", env: []string{"TZ=Asia/Tokyo", "LC_ALL=tr_TR.UTF-8", "SOURCE_DATE_EPOCH=1", "USER=somebody", "HOSTNAME=elsewhere"},
		umask: 0o077, host: true, touch: true},
	{name: "an ordinary user", user: true},
	{name: "from a registry", pull: true},
}

// nobody is the user and group of the conversion without privileges.
const nobody = 65534

// TestConvertReproducible converts images under circumstances that differ and
// compares the digests. What is written holds no time, so the day of the test
// counts as well: see TestConvertPinned.
func TestConvertReproducible(t *testing.T) {
	n := onNode(t)
	for _, i := range []image.Layered{image.Middle(), image.Odd()} {
		t.Run(i.Name, func(t *testing.T) {
			l := layered(t, i)
			n.push(t, l, "originals/"+i.Name+":1")
			var want digest.Digest
			for k, c := range circumstances {
				source := l.Dir
				if c.pull {
					source = n.Registry.Address + "/originals/" + i.Name + ":1"
				}
				// The name is new each time, so that nothing is found there.
				got := n.convertUnder(t, c, source, fmt.Sprintf("reproducible/%s-%d:1", i.Name, k))
				if k == 0 {
					want = got
				}
				if got != want {
					t.Errorf("%s: the digest is %s, want %s", c.name, got, want)
				}
			}
		})
	}
}

// convertUnder converts a layout or an image of a registry to one of the
// sandbox's registry and returns its digest.
func (n machine) convertUnder(t *testing.T, c circumstance, from, target string) digest.Digest {
	t.Helper()
	// Everything is below one folder that the user can read and write.
	dir, err := os.MkdirTemp("", "reprise-convert-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	source := from
	if !c.pull {
		source = filepath.Join(dir, "source")
		mustRun(t.Context(), t, "cp", "-r", from, source)
	}
	mustRun(t.Context(), t, "cp", n.Path("bin/reprise"), filepath.Join(dir, "reprise"))
	if c.touch {
		mustRun(t.Context(), t, "find", source, "-exec", "touch", "-d", "2001-02-03", "{}", "+")
	}
	if err := os.Mkdir(filepath.Join(dir, "home"), 0o700); err != nil {
		t.Fatal(err)
	}
	mustRun(t.Context(), t, "chown", "-R", fmt.Sprintf("%d:%d", nobody, nobody), dir)
	argv := []string{filepath.Join(dir, "reprise"), "convert", "--json", "--cache-dir", ""}
	argv = append(append(argv, c.flags...), source, n.Registry.Address+"/"+target)
	script := fmt.Sprintf("umask %04o; exec \"$@\"", c.umask)
	if c.host {
		script = "hostname elsewhere; " + script
	}
	argv = append([]string{"unshare", "--uts", "sh", "-c", script, "sh"}, argv...)
	if c.user {
		argv = argv[2:]
	}
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir + "/home", "TMPDIR=" + dir + "/home"}, c.env...)
	if c.user {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	begin := time.Now()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", c.name, err, complaint.String())
	}
	conversion, err := node.ParseConversion(string(out))
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range conversion.Layers() {
		if layer.Reused {
			t.Fatalf("%s: layer %s was not converted but reused", c.name, layer.Source)
		}
	}
	t.Logf("%s: %s in %v", c.name, conversion.Digest, time.Since(begin))
	return conversion.Digest
}

func mustRun(ctx context.Context, t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
}

// pinned is the digest of the converted image.Pinned. It is the same on every
// machine and every day. A change of the file system's layout, of the chunk
// table, of a compression library or of the manifest changes it: then images
// that were converted before are converted again by those who look for changed
// digests, so it belongs in the change log.
const pinned digest.Digest = "sha256:1cb2cbcf6fb40497d896b72efeeb378d2d12ad1276cf9128b568db9f71674b58"

// TestConvertPinned converts an image that no package and no tool has a part in
// to a digest that was written down.
func TestConvertPinned(t *testing.T) {
	n := onNode(t)
	n.push(t, layered(t, image.Pinned()), "originals/pinned:1")
	if c := n.convert(t, "originals/pinned:1", "converted/pinned:1"); c.Digest != pinned {
		t.Errorf("the digest is %s, want %s", c.Digest, pinned)
	}
}

// TestConvertSharedBase converts an image and two that are built on it, and
// wants its layers in both, by digest and not sent again.
func TestConvertSharedBase(t *testing.T) {
	n := onNode(t)
	base := image.Odd()
	base.Name = "shared-base"
	var digests []digest.Digest
	for i, c := range n.convertOn(t, base, "one", "two") {
		layers := c.Layers()
		if i == 0 {
			for _, l := range layers {
				digests = append(digests, l.Digest)
			}
			continue
		}
		if len(layers) != len(digests)+1 {
			t.Fatalf("the image has %d layers, want %d", len(layers), len(digests)+1)
		}
		for k, d := range digests {
			if layers[k].Digest != d {
				t.Errorf("layer %d is %s, in the base image %s", k, layers[k].Digest, d)
			}
		}
	}
}

// convertOn converts base and, for each name, an image with one more layer.
func (n machine) convertOn(t *testing.T, base image.Layered, names ...string) []node.Conversion {
	t.Helper()
	images := []image.Layered{base}
	for _, name := range names {
		i := base
		i.Name = "shared-" + name
		i.Steps = append(i.Steps[:len(i.Steps):len(i.Steps)], image.Step{Write: image.OneFile("srv/"+name, name)})
		images = append(images, i)
	}
	var out []node.Conversion
	for _, i := range images {
		n.push(t, layered(t, i), "originals/"+i.Name+":1")
		out = append(out, n.convert(t, "originals/"+i.Name+":1", "converted/"+i.Name+":1"))
	}
	return out
}

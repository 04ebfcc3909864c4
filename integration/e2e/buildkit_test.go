package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// buildkit is a running buildkitd that builds with the snapshotter of a machine.
type buildkit struct {
	n    machine
	addr string
}

// startBuildkit starts buildkitd, with our overlaybd-commit where it looks for
// overlaybd's own. It skips the test where there is none.
func (n machine) startBuildkit(t *testing.T) *buildkit {
	t.Helper()
	var tools []string
	for _, name := range []string{"buildkitd", "buildctl", "unshare"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Skip(err)
		}
		tools = append(tools, path)
	}
	dir := n.Path("buildkit")
	if err := os.MkdirAll(dir+"/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(n.Path("bin/reprise"), dir+"/bin/overlaybd-commit"); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("[registry.%q]\n  http = true\n", n.Proxy.Address)
	if err := os.WriteFile(dir+"/buildkitd.toml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	// Its /opt is its own, but containers must see what it mounts: below dir.
	if err := errors.Join(unix.Mount(dir, dir, "", unix.MS_BIND, ""), unix.Mount("", dir, "", unix.MS_SHARED, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	const script = `mount --make-slave / && mount -t tmpfs tmpfs /opt && mkdir /opt/overlaybd && ln -s "$1" /opt/overlaybd/bin && shift && exec "$@"`
	b := &buildkit{n: n, addr: "unix://" + dir + "/sock"}
	cmd := exec.Command(tools[2], "--mount", "--propagation", "unchanged", "sh", "-c", script, "sh", dir+"/bin",
		tools[0], "--config", dir+"/buildkitd.toml", "--root", dir+"/root", "--addr", b.addr,
		"--oci-worker=false", "--containerd-worker=true", "--containerd-worker-addr", n.Containerd.Address,
		"--containerd-worker-snapshotter=overlaybd", "--containerd-worker-namespace", n.Namespace, "--containerd-worker-net=host", "--containerd-worker-gc=false")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, pruneErr := b.ctl(context.Background(), "prune", "--all")
		err := errors.Join(pruneErr, cmd.Process.Signal(syscall.SIGTERM))
		cmd.Wait() //nolint:errcheck // it was told to end
		if err != nil || t.Failed() {
			t.Errorf("%v; buildkitd: %s", err, log.String())
		}
	})
	for {
		if _, err := b.ctl(t.Context(), "debug", "workers"); err == nil {
			return b
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		default:
			pause(50, 100)
		}
	}
}

// ctl runs buildctl.
func (b *buildkit) ctl(ctx context.Context, args ...string) (string, error) {
	return b.n.Run(ctx, append([]string{"buildctl", "--addr", b.addr}, args...)...)
}

// build builds a Dockerfile beside files and pushes the image as name. It returns
// what was said.
func (b *buildkit) build(t *testing.T, name, dockerfile string, files map[string]string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o600); err != nil {
		t.Fatal(err)
	}
	return b.ctl(t.Context(), "build", "--progress=plain", "--frontend=dockerfile.v0", "--local=context="+dir, "--local=dockerfile="+dir,
		"--output=type=image,name="+b.n.Ref(name)+",push=true,oci-mediatypes=true,compression=uncompressed")
}

// TestBuildkit builds on an overlaybd image: all layers of the result are overlaybd
// layers, and it is read lazily elsewhere.
func TestBuildkit(t *testing.T) {
	n := ownNode(t, node.Options{})
	n.push(t, built(t, small), "small:1")
	b := n.startBuildkit(t)
	out, err := b.build(t, "built:1", `FROM `+n.Ref("small:1")+`
RUN mkdir /made && echo one >/made/file && rm /var/changes/rewritten
COPY hello /made/hello
RUN cat /made/hello >>/made/file && ln /made/file /made/link
CMD ["/bin/cat", "/made/link", "/made/hello"]
`, map[string]string{"hello": "two\n"})
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	base, m := n.manifest(t, "small:1"), n.manifest(t, "built:1")
	if len(m.Layers) != len(base.Layers)+3 {
		t.Errorf("%d layers on %d", len(m.Layers), len(base.Layers))
	}
	for i, l := range m.Layers {
		if l.Annotations[labels.BlobDigest] != l.Digest.String() {
			t.Errorf("layer %d: %+v", i, l)
		}
	}
	fresh := ownNode(t, node.Options{})
	ref := n.Ref("built:1")
	if _, err := fresh.Containerd.Rpull(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	fresh.removeLater(t, ref)
	if got, err := fresh.Containerd.RunContainer(t.Context(), "overlaybd", ref, "built"); err != nil || got != "one\ntwo\ntwo\n" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := fresh.Containerd.RunContainer(t.Context(), "overlaybd", ref, "gone", "/bin/ls", "/var/changes"); err != nil || strings.Contains(got, "rewritten") {
		t.Errorf("%q, %v", got, err)
	}
}

// TestBuildkitOrdinary builds on images whose layers are no overlaybd layers, which are
// those that come, and on one that can't be written, which is refused.
func TestBuildkitOrdinary(t *testing.T) {
	n := ownNode(t, node.Options{})
	n.push(t, layered(t, image.Middle()), "middle:1")
	n.convert(t, "middle:1", "erofs:1")
	b := n.startBuildkit(t)
	out, err := b.build(t, "built:1", `FROM `+n.Ref("middle:1")+`
RUN echo text >/made
`, nil)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if m := n.manifest(t, "built:1"); len(m.Layers[len(m.Layers)-1].Annotations) != 0 {
		t.Errorf("layers %+v", m.Layers)
	}
	ref := n.Ref("built:1")
	if _, err := n.Containerd.Rpull(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	n.removeLater(t, ref)
	if got, err := n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "built", "/bin/cat", "/made"); err != nil || got != "text\n" {
		t.Errorf("%q, %v", got, err)
	}
	out, err = b.build(t, "built:2", `FROM `+n.Ref("erofs:1")+`
RUN echo text >/made
`, nil)
	if err == nil || !strings.Contains(err.Error(), "ctr obdconv") {
		t.Errorf("%v: %s", err, out)
	}
}

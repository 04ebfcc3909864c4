package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/sandbox/wire"
)

// every returns a rule that does f to every nth read of a blob.
func every(n int64, f wire.Fault) wire.Rule {
	var count atomic.Int64
	return func(r *http.Request) wire.Fault {
		if wire.Blob(r) == "" || count.Add(1)%n != 0 {
			return wire.Fault{}
		}
		return f
	}
}

// faulty is an image whose bottom layer no other test case has, and that is
// in no cache for that reason.
func faulty(name string) image.Build {
	b := image.Build{Name: "faults", Rootfs: image.Small(), Format: image.Overlaybd{FSType: image.Ext4},
		Args: []string{"/bin/sh", "-c", sumScript}}
	b.Rootfs.Files = map[string]string{"etc/case": name}
	return b
}

// TestTransientFaults reads a whole image while the registry misbehaves now
// and then. No read may fail or return a wrong byte.
func TestTransientFaults(t *testing.T) {
	n := onNode(t)
	for _, c := range []struct {
		name string
		rule wire.Rule
	}{
		{"500", every(3, wire.Fault{Status: http.StatusInternalServerError})},
		{"429", every(40, wire.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"1"}}})},
		{"cut", every(5, wire.Fault{CutAfter: 1000})},
		{"flip", every(3, wire.Fault{FlipAt: 700})},
		{"slow", every(2, wire.Fault{Delay: 50 * time.Millisecond})},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := faulty(c.name)
			n.push(t, built(t, b), "faults:1")
			n.Proxy.SetRule(c.rule)
			defer n.Proxy.SetRule(nil)
			ref := n.rpull(t, "faults:1")
			out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "faults-"+c.name)
			if err != nil {
				t.Fatal(err)
			}
			compareTrees(t, sorted(out), sums(t, rootfs(t, b.Rootfs)))
		})
	}
}

// TestPermanentFaults pulls while the registry gives no right answer at all:
// a clear error, in finite time, and the next try works.
func TestPermanentFaults(t *testing.T) {
	n := ownNode(t, node.Options{Config: map[string]string{
		"read":     "on_deadline = \"error\"\nread_deadline = \"2s\"\n",
		"registry": "response_timeout = \"1s\"\n",
	}})
	loop := http.Header{"Location": {"http://" + n.Proxy.Address + "/v2/faults/blobs/again"}}
	for _, c := range []struct {
		name string
		rule wire.Rule
		want string // part of the error
	}{
		{"401", every(1, wire.Fault{Status: http.StatusUnauthorized}), "401"},
		{"404", every(1, wire.Fault{Status: http.StatusNotFound}), "404"},
		{"416", every(1, wire.Fault{Status: http.StatusRequestedRangeNotSatisfiable}), "no range"},
		{"500", every(1, wire.Fault{Status: http.StatusInternalServerError}), "500"},
		{"hang", every(1, wire.Fault{Hang: true}), ""},
		{"cut", every(1, wire.Fault{CutAfter: 1}), ""},
		{"no ranges", every(1, wire.Fault{IgnoreRange: true}), "range requests"},
		{"redirect loop", func(*http.Request) wire.Fault {
			return wire.Fault{Status: http.StatusTemporaryRedirect, Header: loop}
		}, "redirect"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := faulty(c.name)
			l := built(t, b)
			n.push(t, l, "faults:1")
			ref := n.Ref("faults:1")
			n.Proxy.SetRule(onLayers(t, l, c.rule))
			out, err := n.Containerd.Rpull(t.Context(), ref)
			if err == nil {
				out, err = n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "broken")
			}
			if err == nil {
				t.Errorf("a container of unreadable layers ran and printed %q", out)
			} else if !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error does not say %q: %v", c.want, err)
			}
			n.Proxy.Release()
			ref = n.rpull(t, "faults:1")
			out, err = n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "mended")
			if err != nil {
				t.Fatalf("with the registry back: %v", err)
			}
			compareTrees(t, sorted(out), sums(t, rootfs(t, b.Rootfs)))
		})
	}
}

// onLayers confines a rule to requests for the image's layers: manifest and
// configuration come through.
func onLayers(t *testing.T, l image.Layout, rule wire.Rule) wire.Rule {
	t.Helper()
	_, m, err := l.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	return func(r *http.Request) wire.Fault {
		if strings.Contains(r.URL.Path, "/manifests/") || strings.HasSuffix(r.URL.Path, m.Config.Digest.String()) {
			return wire.Fault{}
		}
		return rule(r)
	}
}

// TestTokens reads through a registry whose tokens expire while the container
// runs.
func TestTokens(t *testing.T) {
	n := ownNode(t, node.Options{})
	n.push(t, built(t, numpy(image.Ext4)), "demo:1")
	tokens := n.Proxy.RequireToken(2 * time.Second)
	n.writeDockerConfig(t)
	ref := n.Ref("demo:1")
	if _, err := n.Containerd.Rpull(t.Context(), ref, "--user", wire.User+":"+wire.Password); err != nil {
		t.Fatal(err)
	}
	n.removeLater(t, ref)
	before := tokens.Issued()
	out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "tokens", "/bin/sh", "-c",
		"sha256sum /bin/busybox; sleep 3; "+sumScript)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitN(out, "\n", 2)
	compareTrees(t, sorted(lines[1]), sums(t, rootfs(t, image.Numpy())))
	if after := tokens.Issued(); after <= before {
		t.Errorf("%d tokens were issued before and %d after the first one expired", before, after)
	}
}

// writeDockerConfig puts the credentials where the snapshotter looks, and
// restarts it to look there.
func (n machine) writeDockerConfig(t *testing.T) {
	t.Helper()
	path := n.Path("docker.json")
	text := fmt.Sprintf(`{"auths": {%q: {"username": %q, "password": %q}}}`, n.Proxy.Address, wire.User, wire.Password)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Snapshotter.Stop(t.Context())
	if err := n.Snapshotter.Reconfigure(t.Context(), map[string]string{"registry": fmt.Sprintf("docker_config = %q\n", path)}); err != nil {
		t.Fatal(err)
	}
}

package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/remote/registry"
)

// realConfig is of a registry whose one user is "u" with password "p".
const realConfig = `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %[1]s/data}}
http: {addr: %[2]s, relativeurls: true}
auth: {htpasswd: {realm: test, path: %[1]s/htpasswd}}
`

const realUsers = "u:$2b$04$NUsIDIAypBvGtZ4LUJ6Z9eF9UL.KWTTKOJe4DfZ2tpqw.PH2dNd5C\n"

// registryBinary returns Debian's docker-registry: installed, or where make
// tools unpacks it.
func registryBinary(t *testing.T) string {
	if binary, err := exec.LookPath("docker-registry"); err == nil {
		return binary
	}
	dir, err := exec.Command("../../integration/tools/install.sh", "--dir").Output()
	binary := filepath.Join(strings.TrimSpace(string(dir)), "debian/usr/bin/docker-registry")
	if err == nil {
		_, err = os.Stat(binary)
	}
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	return binary
}

// realRegistry starts Debian's docker-registry, if it is there.
func realRegistry(t *testing.T) (host string) {
	binary := registryBinary(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host = l.Addr().String()
	l.Close()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "htpasswd"), realUsers, 0o600)
	writeFile(t, filepath.Join(dir, "config.yml"), fmt.Sprintf(realConfig, dir, host), 0o600)
	cmd := exec.Command(binary, "serve", filepath.Join(dir, "config.yml"))
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for range 600 {
		if resp, err := http.Get("http://" + host + "/v2/"); err == nil {
			resp.Body.Close()
			return host
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("docker-registry does not answer: %s", log.String())
	return ""
}

func TestRealRegistry(t *testing.T) {
	host := realRegistry(t)
	ctx := t.Context()
	c := client(t, registry.Config{Credentials: login("u", "p")})

	data := make([]byte, 6<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	layer := descriptor(data)
	ref := host + "/team/app:1.0"
	for range 2 { // the second time it is there
		if err := c.Push(ctx, ref, layer, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	config := []byte("{}")
	if err := c.Push(ctx, ref, descriptor(config), io.MultiReader(bytes.NewReader(config))); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},`+
		`"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig,
		descriptor(config).Digest, ocispec.MediaTypeImageLayer, layer.Digest, layer.Size)
	man := manifestDescriptor(text)
	if err := c.Push(ctx, ref, man, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}

	for _, r := range []string{ref, host + "/team/app@" + man.Digest.String()} {
		got, err := c.Resolve(ctx, r)
		if err != nil || got.Digest != man.Digest || got.Size != man.Size || got.MediaType != man.MediaType {
			t.Errorf("resolving %s: %+v, %v", r, got, err)
		}
	}
	for _, want := range []struct {
		desc ocispec.Descriptor
		data []byte
	}{{man, []byte(text)}, {descriptor(config), config}, {layer, data}} {
		r, err := c.Fetch(ctx, ref, want.desc)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, want.data) {
			t.Errorf("fetching %s: %d bytes, %v", want.desc.MediaType, len(got), err)
		}
	}
	b, err := c.Open(ref, layer)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 1, 4095, 5 << 20, layer.Size - 3} {
		p := make([]byte, min(70_000, layer.Size-off))
		if _, err := b.ReadAt(ctx, p, off); err != nil || !bytes.Equal(p, data[off:off+int64(len(p))]) {
			t.Errorf("reading %d bytes at %d: wrong, or %v", len(p), off, err)
		}
	}

	if _, err := c.Resolve(ctx, host+"/team/app:2"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a tag that is not there: %v", err)
	}
	anonymous := client(t, registry.Config{})
	if _, err := anonymous.Resolve(ctx, ref); !errors.Is(err, errdefs.ErrUnauthenticated) {
		t.Errorf("without credentials: %v", err)
	}
}

// TestRealRegistrySuite runs the conformance suite of blobs.
func TestRealRegistrySuite(t *testing.T) {
	host := realRegistry(t)
	c := client(t, registry.Config{Credentials: login("u", "p")})
	blobtest.Run(t, func(t *testing.T, data []byte) blob.Blob {
		if err := c.Push(t.Context(), host+"/team/app:1", descriptor(data), bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		return open(t, c, host, data)
	})
}

package push_test

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	contentlocal "github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/push"
	"github.com/reprise-containers/reprise/cmd/internal/transfer"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/remote/registry/registrytest"
)

// world is a content store and a client of registries.
type world struct {
	t      *testing.T
	ctx    context.Context
	store  content.Store
	client *registry.Client
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	cs, err := contentlocal.NewStore(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	m := metadata.NewDB(db, cs, nil)
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	client, err := registry.New(registry.Config{DockerConfig: filepath.Join(dir, "none")})
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, namespaces.WithNamespace(t.Context(), "test"), m.ContentStore(), client}
}

// add puts data into the content store.
func (w *world) add(mediaType string, data []byte, labels map[string]string) ocispec.Descriptor {
	w.t.Helper()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	err := content.WriteBlob(w.ctx, w.store, desc.Digest.String(), bytes.NewReader(data), desc, content.WithLabels(labels))
	if err != nil {
		w.t.Fatal(err)
	}
	return desc
}

func (w *world) addJSON(mediaType string, v any, labels map[string]string) ocispec.Descriptor {
	w.t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.add(mediaType, text, labels)
}

// image is a manifest with two layers in the content store.
type image struct {
	desc, config ocispec.Descriptor
	layers       []ocispec.Descriptor
}

func (w *world) image(seed uint64) image {
	w.t.Helper()
	var i image
	for n, size := range []int{1000, 9<<20 + 7} {
		data := make([]byte, size)
		r := rand.NewChaCha8([32]byte{byte(seed), byte(n)})
		_, _ = r.Read(data)
		i.layers = append(i.layers, w.add(ocispec.MediaTypeImageLayer, data, nil))
	}
	i.config = w.addJSON(ocispec.MediaTypeImageConfig, ocispec.Image{Author: string(rune('a' + seed))}, nil)
	i.desc = w.addJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: i.config, Layers: i.layers,
	}, nil)
	return i
}

// label notes where content was pulled from.
func (w *world) label(d digest.Digest, host, repos string) {
	w.t.Helper()
	key := "containerd.io/distribution.source." + host
	_, err := w.store.Update(w.ctx, content.Info{Digest: d, Labels: map[string]string{key: repos}}, "labels."+key)
	if err != nil {
		w.t.Fatal(err)
	}
}

// forget makes the layers of an image those of a lazy pull.
func (w *world) forget(i image) {
	w.t.Helper()
	for _, l := range i.layers {
		if err := w.store.Delete(w.ctx, l.Digest); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) config(name string, target ocispec.Descriptor, ref string) push.Config {
	return push.Config{
		Content: w.store, Image: images.Image{Name: name, Target: target}, Ref: ref,
		Registry: w.client, Sources: chain.New(w.client, chain.Config{}),
	}
}

func (w *world) push(cfg push.Config) *push.Report {
	w.t.Helper()
	r, err := push.Run(w.ctx, cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// check compares what a tag stands for, and how its blobs came there.
func (w *world) check(r *push.Report, ref string, want digest.Digest, config, layers transfer.Stored) {
	w.t.Helper()
	if got, err := w.client.Resolve(w.ctx, ref); err != nil || got.Digest != want {
		w.t.Errorf("%s is %v, %v; want %s", ref, got.Digest, err, want)
	}
	for n, b := range r.Blobs {
		way := layers
		if n == 0 {
			way = config
		}
		if b.Stored != way {
			w.t.Errorf("blob %d of %s was %s (%s), want %s", n, ref, b.Stored, b.From, way)
		}
		if there, err := w.client.Exists(w.ctx, ref, b.Descriptor); err != nil || !there {
			w.t.Errorf("blob %d of %s is there: %v, %v", n, ref, there, err)
		}
	}
}

func TestPush(t *testing.T) {
	w := newWorld(t)
	host, other := registrytest.Start(t, ""), registrytest.Start(t, "")
	i := w.image(1)
	home := host + "/team/app:1"
	w.check(w.push(w.config(home, i.desc, home)), home, i.desc.Digest, transfer.Uploaded, transfer.Uploaded)
	w.check(w.push(w.config(home, i.desc, host+"/team/app:again")), host+"/team/app:again", i.desc.Digest, transfer.Present, transfer.Present)
	w.label(i.desc.Digest, host, "team/none,team/app")
	w.forget(i)
	// Where it was pulled from is known by labels, whatever its name is.
	copied := host + "/copies/app:1"
	w.check(w.push(w.config("something", i.desc, copied)), copied, i.desc.Digest, transfer.Uploaded, transfer.Mounted)
	away := other + "/app:1"
	r := w.push(w.config("something", i.desc, away))
	w.check(r, away, i.desc.Digest, transfer.Uploaded, transfer.Copied)
	if r.Blobs[1].From == "" {
		t.Errorf("%+v", r)
	}
}

// A layer of several manifests is to be had from where any of them was pulled.
func TestPushShared(t *testing.T) {
	w := newWorld(t)
	host := registrytest.Start(t, "")
	i := w.image(1)
	home := host + "/team/app:1"
	w.push(w.config(home, i.desc, home))
	// Another manifest with the same layers, from where they are not.
	config := w.addJSON(ocispec.MediaTypeImageConfig, ocispec.Image{Author: "other"}, nil)
	first := w.addJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: i.layers,
	}, nil)
	index := w.addJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{first, i.desc},
	}, nil)
	w.label(first.Digest, host, "team/none")
	w.label(i.desc.Digest, host, "team/app")
	w.forget(i)
	r := w.push(w.config("something", index, host+"/copies/app:1"))
	mounted := 0
	for _, b := range r.Blobs {
		if b.Stored == transfer.Mounted && b.From == host+"/team/app" {
			mounted++
		}
	}
	if mounted < len(i.layers) {
		t.Errorf("%d blobs are mounted: %+v", mounted, r.Blobs)
	}
}

// Without labels, the name of the image is where it is from.
func TestPushByName(t *testing.T) {
	w := newWorld(t)
	host := registrytest.Start(t, "")
	i := w.image(2)
	home := host + "/team/app:1"
	w.push(w.config(home, i.desc, home))
	w.forget(i)
	to := host + "/elsewhere:1"
	w.check(w.push(w.config(home, i.desc, to)), to, i.desc.Digest, transfer.Uploaded, transfer.Mounted)
}

func TestPushOfWhatIsNowhere(t *testing.T) {
	w := newWorld(t)
	host := registrytest.Start(t, "")
	i := w.image(3)
	w.forget(i)
	ref := host + "/app:1"
	for name, want := range map[string]string{"Not A Reference": "pull the image again", host + "/gone:1": "404"} {
		_, err := push.Run(w.ctx, w.config(name, i.desc, ref))
		named := func(l ocispec.Descriptor) bool { return strings.Contains(err.Error(), l.Digest.String()) }
		if err == nil || !slices.ContainsFunc(i.layers, named) || !strings.Contains(err.Error(), want) {
			t.Errorf("from %s: %v", name, err)
		}
	}
	if _, err := w.client.Resolve(w.ctx, ref); !errdefs.IsNotFound(err) {
		t.Errorf("an image that was not pushed has a name: %v", err)
	}
	missing := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1}
	if _, err := push.Run(w.ctx, w.config("x", missing, ref)); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "pull the image again") {
		t.Errorf("without a manifest: %v", err)
	}
}

// liar serves other bytes than asked for.
type liar struct{ data []byte }

func (l liar) Open(_ string, desc ocispec.Descriptor) (blob.Blob, error) {
	return lie{blobtest.Bytes(l.data[:desc.Size]), desc}, nil
}

type lie struct {
	blob.Blob
	desc ocispec.Descriptor
}

func (l lie) Descriptor() ocispec.Descriptor { return l.desc }

func TestPushVerifies(t *testing.T) {
	w := newWorld(t)
	host := registrytest.Start(t, "")
	i := w.image(4)
	w.forget(i)
	cfg := w.config("example.com/app:1", i.desc, host+"/app:1")
	cfg.Sources = liar{make([]byte, 16<<20)}
	_, err := push.Run(w.ctx, cfg)
	if err == nil || !strings.Contains(err.Error(), "does not have the digest") {
		t.Errorf("wrong bytes: %v", err)
	}
	for _, l := range i.layers {
		if there, err := w.client.Exists(w.ctx, host+"/app", l); there || err != nil {
			t.Errorf("%s is there: %v, %v", l.Digest, there, err)
		}
	}
}

func TestPushIndex(t *testing.T) {
	w := newWorld(t)
	host := registrytest.Start(t, "")
	here, gone := w.image(5), w.image(6)
	here.desc.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	gone.desc.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	index := w.addJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{here.desc, gone.desc},
	}, nil)
	text, err := content.ReadBlob(w.ctx, w.store, gone.desc)
	if err != nil || w.store.Delete(w.ctx, gone.desc.Digest) != nil {
		t.Fatal(err)
	}
	ref := host + "/multi:1"
	cfg := w.config("multi", index, ref)
	_, err = push.Run(w.ctx, cfg)
	for _, want := range []string{gone.desc.Digest.String(), "linux/arm64", "--platform"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if there, err := w.client.Exists(w.ctx, ref, here.layers[0]); err != nil || there {
		t.Errorf("something was moved before the error: %v, %v", there, err)
	}
	cfg.Platform = "linux/amd64"
	w.check(w.push(cfg), ref, here.desc.Digest, transfer.Uploaded, transfer.Uploaded)
	// A manifest that the destination has is not needed here.
	cfg.Platform = ""
	for _, b := range append(gone.layers, gone.config) {
		data, err := content.ReadBlob(w.ctx, w.store, b)
		if err == nil {
			err = w.client.Push(w.ctx, ref, b, bytes.NewReader(data))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.client.Push(w.ctx, host+"/multi", gone.desc, bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if r := w.push(cfg); r.Target.Digest != index.Digest {
		t.Errorf("%+v", r)
	}
}

func TestConfigValidate(t *testing.T) {
	w := newWorld(t)
	good := w.config("app", ocispec.Descriptor{}, "example.com/app")
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*push.Config){
		"no store":    func(c *push.Config) { c.Content = nil },
		"digest":      func(c *push.Config) { c.Ref = "example.com/app@" + digest.FromString("").String() },
		"reference":   func(c *push.Config) { c.Ref = "No" },
		"platform":    func(c *push.Config) { c.Platform = "/" },
		"concurrency": func(c *push.Config) { c.Concurrency = -1 },
	} {
		c := good
		change(&c)
		if _, err := push.Run(w.ctx, c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

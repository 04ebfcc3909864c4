package convert_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/convert"
	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/remote/registry/registrytest"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// remote is a way to registries.
type remote struct {
	t      *testing.T
	client *registry.Client
	chain  *chain.Chain
}

func newRemote(t *testing.T) *remote {
	retry := blob.RetryConfig{Attempts: 3, Base: time.Millisecond, Max: time.Millisecond}
	client, err := registry.New(registry.Config{DockerConfig: t.TempDir() + "/none.json", Retry: retry})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return &remote{t, client, chain.New(client, chain.Config{Retry: retry})}
}

func (r *remote) content(arg string) *source.Content {
	return content(r.t, arg, source.Config{Registry: r.chain})
}

// convert converts from any source to a reference.
func (r *remote) convert(cfg convert.Config, from, to string) (*convert.Report, error) {
	r.t.Helper()
	cfg.Source = r.content(from)
	var err error
	if cfg.Destination, err = destination.NewRegistry(r.client, r.chain, to); err != nil {
		r.t.Fatal(err)
	}
	return convert.Run(r.t.Context(), cfg)
}

func (r *remote) mustConvert(cfg convert.Config, from, to string) *convert.Report {
	r.t.Helper()
	report, err := r.convert(cfg, from, to)
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

// missing fails the test if there is a tag.
func (r *remote) missing(ref string) {
	r.t.Helper()
	if d, err := r.client.Resolve(r.t.Context(), ref); !errdefs.IsNotFound(err) {
		r.t.Errorf("%s is there: %s, %v", ref, d.Digest, err)
	}
}

// stored returns how the layers of a report came to their destination.
func stored(r *convert.Report) (all []string) {
	for _, i := range r.Images {
		for _, l := range i.Layers {
			s := string(l.Stored)
			if l.Reused {
				s += " again"
			}
			all = append(all, s)
		}
	}
	return all
}

func wantStored(t *testing.T, r *convert.Report, want ...string) {
	t.Helper()
	if got := stored(r); !slices.Equal(got, want) {
		t.Errorf("layers are %q, want %q", got, want)
	}
}

func TestRegistry(t *testing.T) {
	host, r := registrytest.Start(t, ""), newRemote(t)
	local := single(t, three()...)
	want := mustRun(t, config(t), local, t.TempDir()).Digest

	cfg := config(t)
	cfg.Cache = convert.OpenCache(t.TempDir())
	first := r.mustConvert(cfg, local, host+"/team/app:1")
	wantStored(t, first, "uploaded", "uploaded", "uploaded")
	if first.Digest != want {
		t.Errorf("in a registry it is %s, in a layout %s", first.Digest, want)
	}
	if d, err := r.client.Resolve(t.Context(), host+"/team/app:1"); err != nil || d.Digest != want || d.MediaType != ocispec.MediaTypeImageManifest {
		t.Errorf("the tag is %+v, %v", d, err)
	}

	// Every byte of it is verified by what the manifest says.
	strict := chain.New(r.client, chain.Config{Retry: blob.RetryConfig{Attempts: 1}, Verify: chain.VerifyRequired})
	img, err := source.Open(t.Context(), host+"/team/app:1", source.Config{Registry: strict})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range img.Layers {
		if err := blob.ReadFull(t.Context(), l, make([]byte, l.Size()), 0); err != nil {
			t.Error(err)
		}
	}

	// The same, by what the cache knows: here, and in another repository.
	wantStored(t, r.mustConvert(cfg, local, host+"/team/app:2"), "present again", "present again", "present again")
	wantStored(t, r.mustConvert(cfg, local, host+"/other/app:1"), "mounted again", "mounted again", "mounted again")

	// By what an image says, without a cache.
	plain := config(t)
	plain.Known = []*source.Content{r.content(host + "/team/app:1")}
	wantStored(t, r.mustConvert(plain, local, host+"/third/app:1"), "mounted again", "mounted again", "mounted again")
	// From another registry.
	other := registrytest.Start(t, "")
	wantStored(t, r.mustConvert(plain, local, other+"/app:1"), "copied again", "copied again", "copied again")

	// An image on the same base: its layer is converted above the base's,
	// which is read from the registry.
	child := append(three(), gzipLayer(archive(map[string]int{"child": 5000})))
	report := r.mustConvert(plain, single(t, child...), host+"/third/child:1")
	wantStored(t, report, "mounted again", "mounted again", "mounted again", "uploaded")
	if fresh := mustRun(t, config(t), single(t, child...), t.TempDir()); fresh.Digest != report.Digest {
		t.Errorf("on a converted base %s, at once %s", report.Digest, fresh.Digest)
	}
	// A source in a registry that is not converted yet, to an archive.
	file := t.TempDir() + "/image.tar"
	ordinary := config(t)
	ordinary.Referrer = true // keeps the source
	kept := r.mustConvert(ordinary, local, host+"/plain:1")
	to, err := destination.NewArchive(file, "x", false)
	if err != nil {
		t.Fatal(err)
	}
	ordinary.Referrer, ordinary.Source, ordinary.Destination = false, r.content(host+"/plain:1"), to
	down, err := convert.Run(t.Context(), ordinary)
	if err != nil || down.Digest != want {
		t.Errorf("%+v, %v", down, err)
	}
	if err := to.Close(); err != nil {
		t.Error(err)
	}
	opens(t, file+":x", 3)

	// The converted image is found from the source.
	found, err := r.client.Referrers(t.Context(), host+"/plain:1", kept.SourceDigest, labels.ConvertedArtifact)
	if err != nil || len(found) != 1 || found[0].Digest != kept.Digest || kept.Tagged != kept.SourceDigest {
		t.Errorf("referrers %+v, %v; want %s", found, err, kept.Digest)
	}
}

// frail is a registry that breaks uploads: of each, so many bytes pass, as long
// as breaks are left.
type frail struct {
	proxy  *httputil.ReverseProxy
	after  int64
	breaks atomic.Int64
	dead   atomic.Bool // answers nothing any more
	dies   bool        // with the first break
}

func newFrail(t *testing.T, host string, after, breaks int64, dies bool) (*frail, string) {
	f := &frail{proxy: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host}), after: after, dies: dies}
	f.proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	f.breaks.Store(breaks)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: f}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return f, l.Addr().String()
}

func (f *frail) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.dead.Load() {
		panic(http.ErrAbortHandler)
	}
	if (r.Method == http.MethodPut || r.Method == http.MethodPatch) && r.ContentLength > f.after && f.breaks.Add(-1) >= 0 {
		if f.dies {
			f.dead.Store(true)
		}
		io.CopyN(io.Discard, r.Body, f.after)
		panic(http.ErrAbortHandler)
	}
	f.proxy.ServeHTTP(w, r)
}

func TestRegistryBreaks(t *testing.T) {
	host, r := registrytest.Start(t, ""), newRemote(t)
	from := single(t, three()...)
	_, weak := newFrail(t, host, 10_000, 2, false)
	report := r.mustConvert(config(t), from, weak+"/weak:1")
	wantStored(t, report, "uploaded", "uploaded", "uploaded")
	if d, err := r.client.Resolve(t.Context(), host+"/weak:1"); err != nil || d.Digest != report.Digest {
		t.Errorf("%+v, %v", d, err)
	}

	// One that dies, and after that works again: what was uploaded before
	// is not uploaded again.
	cfg := config(t)
	cfg.Cache = convert.OpenCache(t.TempDir())
	cfg.Concurrency = 1
	dying, address := newFrail(t, host, 100_000, 1, true)
	layers := append(three()[1:], gzipLayer(archive(map[string]int{"large": 1 << 20})))
	from = single(t, layers...)
	_, err := r.convert(cfg, from, address+"/dying:1")
	if err == nil || !strings.Contains(err.Error(), "layer 2 (") || !strings.Contains(err.Error(), "giving up after") || !strings.Contains(err.Error(), address) {
		t.Errorf("a registry that dies: %v", err)
	}
	r.missing(host + "/dying:1")
	dying.dead.Store(false)
	wantStored(t, r.mustConvert(cfg, from, address+"/dying:1"), "present again", "present again", "uploaded")
}

// A registry that refuses the manifest has no tag, and one that can't be read
// is an error that names it.
func TestRegistryRefuses(t *testing.T) {
	host, r := registrytest.Start(t, ""), newRemote(t)
	refusing := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPut && strings.HasSuffix(req.URL.Path, "/manifests/1") {
			http.Error(w, `{"errors":[{"code":"DENIED","message":"tags are immutable"}]}`, http.StatusForbidden)
			return
		}
		refusing.ServeHTTP(w, req)
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	_, err = r.convert(config(t), single(t, three()...), l.Addr().String()+"/app:1")
	if err == nil || !strings.Contains(err.Error(), "tags are immutable") {
		t.Errorf("%v", err)
	}
	r.missing(host + "/app:1")
}

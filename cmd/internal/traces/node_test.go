package traces_test

import (
	"archive/tar"
	"bytes"
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/files"
	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/convert"
	"github.com/reprise-containers/reprise/cmd/internal/prefetch"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry/registrytest"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
	"github.com/reprise-containers/reprise/tracelayer/replay"
)

// ordinary stores an image of ordinary layers, each with one file of random
// bytes.
func (b *builder) ordinary(names ...string) ocispec.Descriptor {
	b.t.Helper()
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for i, name := range names {
		data := make([]byte, 300_000)
		rand.NewChaCha8([32]byte{byte(i)}).Read(data)
		var text bytes.Buffer
		w := tar.NewWriter(&text)
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			b.t.Fatal(err)
		}
		w.Write(data)
		w.Close()
		m.Layers = append(m.Layers, b.blob(ocispec.MediaTypeImageLayer, text.Bytes()))
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(text.Bytes()))
	}
	m.Config = b.json(ocispec.MediaTypeImageConfig, config)
	return b.json(ocispec.MediaTypeImageManifest, m)
}

// outcomes are what a Prefetcher says.
type outcomes chan prefetch.Outcome

func (o outcomes) Prefetched(_ string, is prefetch.Outcome, _ replay.Stats, _ error) { o <- is }
func (o outcomes) Skipped(string, error)                                             {}

// A node finds what was attached to an image, replays it, and has all that the
// start reads, verified with the tables of the layers.
func TestNodeReplaysAttached(t *testing.T) {
	r, b := newRemote(t), newBuilder(t)
	host := registrytest.Start(t, "")
	ref := host + "/app:1"
	to := r.destination(ref)
	if _, err := convert.Run(t.Context(), convert.Config{Source: r.open(b.tag("1", b.ordinary("one", "two"))), Destination: to, TempDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	var layers []blob.ReaderAt
	img, err := source.Open(t.Context(), ref, source.Config{Registry: r.chain, Platform: "linux/amd64"})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range img.Layers {
		layers = append(layers, l)
	}
	start, missing, err := files.Trace(t.Context(), layers, []string{"/one", "/two"})
	if err != nil || len(missing) > 0 {
		t.Fatal(missing, err)
	}
	dir := t.TempDir()
	trace := write(t, dir+"/trace", start.Encode())
	list := write(t, dir+"/list", []byte("/one\n/two\n"))
	for _, c := range []struct {
		workload string
		cfg      traces.AttachConfig
	}{
		{"trace", traces.AttachConfig{Recording: recording(t, trace)}},
		{"without data", traces.AttachConfig{Recording: recording(t, trace), NoData: true}},
		{"list", traces.AttachConfig{Recording: recording(t, list)}},
	} {
		c.cfg.Workload = c.workload
		report, notes, err := r.attach(ref, c.cfg)
		if err != nil || len(notes) > 0 || report.Manifest != img.Manifest.Digest {
			t.Fatalf("%s: %+v, %q, %v", c.workload, report, notes, err)
		}
	}
	// The order in which a registry answers decides nothing.
	var same [2]*traces.Attachment
	for i := range same {
		if same[i], _, err = r.attach(ref, traces.AttachConfig{Recording: recording(t, list), Workload: "again"}); err != nil {
			t.Fatal(err)
		}
	}
	if same[0].Artifact != same[1].Artifact {
		t.Errorf("one list made %+v and %+v", same[0], same[1])
	}
	for _, workload := range []string{"trace", "without data", "list"} {
		node(t, r, ref, workload, img, start)
	}
}

// node lets a node that has nothing replay the trace for a workload, and then
// makes the reads of start.
func node(t *testing.T, r *remote, ref, workload string, img *source.Image, start tracelayer.Trace) {
	t.Helper()
	stored, err := cache.Open(cache.Config{Dir: t.TempDir(), MaxBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer stored.Close()
	var requests atomic.Int64
	ch := chain.New(r.client, chain.Config{
		Cache: stored, Retry: blob.RetryConfig{Attempts: 2}, Limit: blob.LimitConfig{Requests: 8, Background: 4}, Verify: chain.VerifyRequired,
		OriginReads: blob.ObserverFunc(func(int, time.Duration, error, blob.Priority) { requests.Add(1) }),
	})
	told := make(outcomes, 1)
	p := prefetch.New(ch, prefetch.NewFinder(r.client, workload), told, prefetch.Config{Parallel: 1})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	image := backstore.Image{Ref: ref}
	for _, l := range img.Layers {
		d := l.Descriptor()
		annotations := map[string]string{labels.ManifestDigest: img.Manifest.Digest.String()}
		for _, k := range []string{labels.ChunksRoot, labels.ChunksOffset, labels.ChunksSize} {
			annotations[k] = d.Annotations[k]
		}
		image.Layers = append(image.Layers, backstore.Layer{Digest: d.Digest, Size: d.Size, Annotations: annotations})
	}
	p.Prefetch(image)
	if o := <-told; o != prefetch.Replayed {
		t.Errorf("%s: %s", workload, o)
	}
	before := requests.Load()
	var streams []blob.ReaderAt
	for _, l := range image.Layers {
		b, err := ch.Open(ref, l.Descriptor())
		if err != nil {
			t.Fatal(err)
		}
		s, err := backstore.Stream(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
	}
	for _, rec := range start {
		if err := blob.ReadFull(t.Context(), streams[rec.Layer], make([]byte, rec.Count), rec.Off); err != nil {
			t.Fatal(err)
		}
	}
	if n := requests.Load() - before; n != 0 {
		t.Errorf("%s: %d requests for what a trace of %d reads should have fetched", workload, n, len(start))
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

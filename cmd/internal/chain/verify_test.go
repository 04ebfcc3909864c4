package chain_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// withTable returns a layer blob with a chunk table and its descriptor.
func withTable(t *testing.T, name string) ([]byte, ocispec.Descriptor) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../../backstore/testdata/vectors/small-chain3", name))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	ref, dgst, size, err := backstore.AppendChunks(t.Context(), f, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if data, err = os.ReadFile(f.Name()); err != nil {
		t.Fatal(err)
	}
	return data, ocispec.Descriptor{Digest: dgst, Size: size, Annotations: labels.WithChunks(ref)}
}

// tableOf returns where desc says that its chunk table is.
func tableOf(t *testing.T, desc ocispec.Descriptor) chunks.Ref {
	t.Helper()
	ref, err := labels.Chunks(desc.Annotations)
	if err != nil || ref.IsZero() {
		t.Fatalf("%+v, %v", ref, err)
	}
	return ref
}

// damaged returns data with the byte at off inverted.
func damaged(data []byte, off int64) []byte {
	data = bytes.Clone(data)
	data[off] = ^data[off]
	return data
}

// failures keeps what it is told as an observer of verification.
type failures struct {
	mu   sync.Mutex
	from []string
}

func (f *failures) VerifyFailed(_ digest.Digest, _, _, _ int64, origin string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.from = append(f.from, origin)
}

func (f *failures) origins() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.from...)
}

// tries ends reads of what stays wrong.
var tries = blob.RetryConfig{Attempts: 2, Base: time.Millisecond}

// All of a verified blob can be read: cold, from the cache, and with only one
// connection, which nobody may hold while the table is read.
func TestVerified(t *testing.T) {
	data, desc := withTable(t, "L0.lz4-4k.tar")
	host, requests := server(t, data)
	var verified, sawOrigin counter
	c := newChain(t, chain.Config{
		Limit: blob.LimitConfig{Requests: 1, Background: 1}, VerifiedReads: &verified, OriginReads: &sawOrigin,
	})
	b := openBlob(t, c, host+"/app:1", desc)
	table := tableOf(t, desc)
	for _, at := range []int64{0, table.Offset - 512, table.Offset} {
		if blob.Present(b, at, 512) || blob.Present(b, at-min(at, 100), 512) {
			t.Errorf("what is at %d is present before it was read", at)
		}
	}
	got := make([]byte, len(data))
	var readers sync.WaitGroup
	for i := range 8 { // the whole of it, some at a time, over the start of the table and beyond
		readers.Go(func() {
			ctx := t.Context()
			if i%2 == 0 {
				ctx = blob.WithPriority(ctx, blob.Background)
			}
			for off := i * 1000; off < len(data); off += 8000 {
				p := got[off:min(off+1000, len(data))]
				if n, err := b.ReadAt(ctx, p, int64(off)); n != len(p) {
					t.Errorf("reading at %d: %d bytes, %v", off, n, err)
				}
			}
		})
	}
	readers.Wait()
	if !bytes.Equal(got, data) {
		t.Error("read something else")
	}
	before := requests.Load()
	if read(t, b, len(data), 0) != string(data) || requests.Load() != before {
		t.Errorf("%d requests for what is cached", requests.Load()-before)
	}
	if !blob.Present(b, table.Offset-1024, 1024) || !blob.Present(b, 0, b.Size()) {
		t.Error("not all is present")
	}
	for _, at := range []int64{0, table.Offset - 800, table.Offset} {
		if !blob.Present(b, at, 512) {
			t.Errorf("what is at %d is not present", at)
		}
		if blob.Discard(b, at, 512); blob.Present(b, at, 512) || blob.Present(b, at+511, 1) {
			t.Errorf("what is at %d was not discarded", at)
		}
	}
	if verified.Load() == 0 || sawOrigin.Load() != before {
		t.Errorf("%d verified reads, %d requests seen of %d", verified.Load(), sawOrigin.Load(), before)
	}
}

// A read over everything at once, whose fetch spans data and table, needs the
// table, which lies in itself.
func TestVerifiedAtOnce(t *testing.T) {
	data, desc := withTable(t, "L1.zstd-64k.tar")
	host, _ := server(t, data)
	c := newChain(t, chain.Config{Limit: blob.LimitConfig{Requests: 1, Background: 1}})
	if read(t, openBlob(t, c, host+"/app:1", desc), len(data), 0) != string(data) {
		t.Error("read something else")
	}
}

// A wrong byte reaches neither reader nor cache, and the error says who sent it.
func TestDamage(t *testing.T) {
	data, desc := withTable(t, "L0.lz4-4k.tar")
	table := tableOf(t, desc)
	for name, at := range map[string]int64{"data": 2000, "index of the table": table.Offset + 60, "a page of the table": table.Offset + table.Size - 10} {
		t.Run(name, func(t *testing.T) {
			host, _ := server(t, damaged(data, at))
			var seen failures
			c := newChain(t, chain.Config{Retry: tries, VerifyFailures: &seen})
			b := openBlob(t, c, host+"/app:1", desc)
			off := int64(2000)
			if name == "a page of the table" {
				off = table.Offset - 1024
			}
			n, err := b.ReadAt(t.Context(), make([]byte, 100), off)
			var wrong *chunks.Error
			if n > 0 || !errors.As(err, &wrong) || !strings.Contains(err.Error(), host) || !strings.Contains(err.Error(), desc.Digest.String()) {
				t.Errorf("read %d bytes, %v; want an error with host and blob", n, err)
			}
			if blob.Present(b, off, 100) {
				t.Error("what is wrong is in the cache")
			}
			for _, from := range seen.origins() {
				if from != "http://"+host {
					t.Errorf("%q is blamed", from)
				}
			}
			if len(seen.origins()) == 0 {
				t.Error("nobody was told")
			}
		})
	}
}

// One registry that answers in the table's place with something else does not
// spoil the blob for another, nor for itself when it does so no more.
func TestWrongTable(t *testing.T) {
	data, desc := withTable(t, "L0.lz4-4k.tar")
	table := tableOf(t, desc)
	badHost, _ := server(t, damaged(data, table.Offset+60))
	goodHost, _ := server(t, data)
	c := newChain(t, chain.Config{Retry: tries})
	bad := openBlob(t, c, badHost+"/app", desc)
	if _, err := bad.ReadAt(t.Context(), make([]byte, 100), 2000); err == nil {
		t.Error("read by a wrong table")
	}
	// Nobody verifies a part of the table when it is fetched.
	_, _ = bad.ReadAt(t.Context(), make([]byte, table.Size), table.Offset)
	if got := read(t, openBlob(t, c, goodHost+"/app", desc), len(data), 0); got != string(data) {
		t.Error("a wrong table spoiled the blob for others")
	}
}

// forgedAt is where a forged blob has other bytes than the layer.
const forgedAt = 100_000

// forged returns a blob of the length of the layer's, its table where the
// layer's is, and the layer's descriptor with that table in place of its own:
// what somebody can say about a layer of which he knows the digest.
func forged(t *testing.T, data []byte, desc ocispec.Descriptor) ([]byte, ocispec.Descriptor) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "forged"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	covered := tableOf(t, desc).Offset - 512
	if _, err := f.Write(damaged(data[:covered], forgedAt)); err != nil {
		t.Fatal(err)
	}
	ref, _, size, err := backstore.AppendChunks(t.Context(), f, covered)
	if err != nil {
		t.Fatal(err)
	}
	evil, err := os.ReadFile(f.Name())
	if err != nil || size != desc.Size || ref.Offset != tableOf(t, desc).Offset || ref.Root == tableOf(t, desc).Root {
		t.Fatalf("%d bytes, table %+v, %v", size, ref, err)
	}
	desc.Annotations = labels.WithChunks(ref)
	return evil, desc
}

// A layer's snapshot is shared by all images on it, and has the table of the one
// that pulled it first. What a registry served and that table lets pass must not
// get to an image of another registry, even though it reads with that table.
func TestForeignTable(t *testing.T) {
	data, desc := withTable(t, "L0.lz4-4k.tar")
	evil, lie := forged(t, data, desc)
	evilHost, _ := server(t, evil)
	host, requests := server(t, data)
	c := newChain(t, chain.Config{Retry: tries, Verify: chain.VerifyRequired})
	first := openBlob(t, c, evilHost+"/base", lie)
	if got := read(t, first, 100, forgedAt); got != string(evil[forgedAt:forgedAt+100]) || !blob.Present(first, forgedAt, 100) {
		t.Fatal("the table does not fit its blob, or it is not cached")
	}
	b := openBlob(t, c, host+"/app", lie)
	if blob.Present(b, forgedAt, 100) {
		t.Error("what another registry served is there")
	}
	p := make([]byte, 100)
	if n, err := b.ReadAt(t.Context(), p, forgedAt); n > 0 || err == nil || bytes.Equal(p, evil[forgedAt:forgedAt+100]) || requests.Load() == 0 {
		t.Errorf("read %d bytes of another registry, %v", n, err)
	}
}

// A manifest can state a table of its own for anybody's digest. What that one
// lets pass must not get to an image that states another, nor may what was read
// without any, even if both are of one registry whose mirrors differ.
func TestTableOfAnother(t *testing.T) {
	data, desc := withTable(t, "L0.lz4-4k.tar")
	evil, lie := forged(t, data, desc)
	content := map[bool][]byte{true: evil, false: data}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content[strings.Contains(r.URL.Path, "evil")]))
	}))
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "http://")
	bare := lie
	bare.Annotations = nil
	for name, first := range map[string]ocispec.Descriptor{"another table": lie, "no table": bare} {
		c := newChain(t, chain.Config{})
		if got := read(t, openBlob(t, c, host+"/evil", first), 100, forgedAt); got != string(evil[forgedAt:forgedAt+100]) {
			t.Fatalf("%s: read something else", name)
		}
		if got := read(t, openBlob(t, c, host+"/app", desc), 100, forgedAt); got != string(data[forgedAt:forgedAt+100]) {
			t.Errorf("%s: read what was never verified with the image's own", name)
		}
	}
}

func TestPolicy(t *testing.T) {
	data, desc := withTable(t, "L0.lz4-4k.tar")
	bare := desc
	bare.Annotations = nil
	broken := desc
	broken.Annotations = labels.WithChunks(tableOf(t, desc))
	delete(broken.Annotations, labels.ChunksSize)
	beyond := desc
	far := tableOf(t, desc)
	far.Offset += 1 << 20
	beyond.Annotations = labels.WithChunks(far)
	short := desc
	short.Size += 1 << 20
	host, _ := server(t, damaged(data, 2000))
	for _, c := range []struct {
		policy chain.Policy
		desc   ocispec.Descriptor
		open   string // part of the error of Open
		read   bool   // wrong bytes get through
	}{
		{"", desc, "", false},
		{chain.VerifyWhenPossible, desc, "", false},
		{chain.VerifyWhenPossible, bare, "", true},
		{chain.VerifyWhenPossible, broken, labels.ChunksSize, false},
		{chain.VerifyWhenPossible, beyond, "does not lie in a blob", false},
		{chain.VerifyRequired, short, "lie behind its chunk table", false},
		{chain.VerifyRequired, desc, "", false},
		{chain.VerifyRequired, bare, "reprise convert", false},
		{chain.VerifyOff, desc, "", true},
		{chain.VerifyOff, bare, "", true},
		{chain.VerifyOff, broken, "", true},
	} {
		// What holds for the host wins.
		cfg := chain.Config{Retry: tries, Verify: chain.VerifyRequired, VerifyHosts: map[string]chain.Policy{host: c.policy}}
		if c.policy == chain.VerifyRequired {
			cfg.VerifyHosts = map[string]chain.Policy{"other.example": chain.VerifyOff}
		}
		b, err := newChain(t, cfg).Open(host+"/app:1", c.desc)
		if c.open != "" {
			if err == nil || !strings.Contains(err.Error(), c.open) || !strings.Contains(err.Error(), host) || !strings.Contains(err.Error(), desc.Digest.String()) {
				t.Errorf("%q: opening %v = %v, want an error with layer, host and %q", c.policy, c.desc.Annotations, err, c.open)
			}
			if strings.Contains(c.open, "convert") && !errdefs.IsFailedPrecondition(err) {
				t.Errorf("%v has no class", err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.policy, err)
			continue
		}
		n, err := b.ReadAt(t.Context(), make([]byte, 100), 2000)
		if (n == 100) != c.read || (err == nil || err == io.EOF) != c.read { //nolint:errorlint // exact
			t.Errorf("%q: reading what is wrong: %d bytes, %v", c.policy, n, err)
		}
	}
}

package registrycache_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/integration/registrycache/origin"
	"github.com/reprise-containers/reprise/integration/registrycache/swarm"
)

// TestLyingBlobs has the upstream answer wrongly in each way; nobody is given a
// wrong byte in a complete answer, nothing wrong is kept, and an honest answer
// afterwards is served.
func TestLyingBlobs(t *testing.T) {
	other := origin.Random(21, 1<<20).Bytes()
	for name, lie := range map[string]origin.Fault{
		"other bytes":               {Lie: other},
		"other bytes, their digest": {Lie: other, Header: map[string]string{"Docker-Content-Digest": digest.FromBytes(other).String()}},
		"one byte":                  {Flip: 777_777},
		"the last byte":             {Flip: 1<<20 - 1},
		"truncated":                 {Truncate: 1000},
		"truncated without length":  {Truncate: 1000, Unframed: true},
		"cut":                       {CutAfter: 300_000},
		"cut at once":               {CutAfter: 1},
		"cut without length":        {CutAfter: 300_000, Unframed: true},
		"longer than it is":         {Header: map[string]string{"Content-Length": "2000000"}, CutAfter: 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := begin(t, nil)
			blob := origin.Random(20, 1<<20)
			want := blob.Bytes()
			r.up.AddBlob("a/b", blob)
			r.up.SetRule(func(q *http.Request) origin.Fault {
				if q.Method == http.MethodGet {
					return lie
				}
				return origin.Fault{}
			})
			for range 2 {
				got, err := r.target("").Pull(r.ctx, swarm.Pull{Repo: "a/b", Digest: blob.Digest, Want: want})
				// Wrong bytes may cross before it is known that they are; what may
				// not is an answer that looks whole. (A fetch that is cut can go on
				// where it was, so some come to the right end.)
				if errors.Is(err, swarm.ErrWrong) && !got.Broken {
					t.Errorf("a lie came through as a whole answer (%v)", err)
				}
				r.notWhole(blob)
			}
			r.up.SetRule(nil)
			r.pull("", "a/b", blob)
		})
	}
}

// notWhole reads the blob without comparing and fails the test if the answer is
// complete and not the blob.
func (r *rig) notWhole(blob *origin.Content) {
	r.t.Helper()
	resp, body, err := r.target("").Get(r.ctx, "a/b/blobs/"+blob.Digest.String(), nil)
	if err == nil && resp.StatusCode == http.StatusOK && digest.FromBytes(body) != blob.Digest {
		r.t.Errorf("a complete answer of %d bytes is not the blob", len(body))
	}
}

// TestLyingRanges has answers to range reads be for other ranges, or for none.
func TestLyingRanges(t *testing.T) {
	for name, lie := range map[string]origin.Fault{
		"another range":  {Shift: 4096},
		"no range":       {IgnoreRange: true},
		"said wrongly":   {Header: map[string]string{"Content-Range": "bytes 0-9/10"}},
		"short":          {Truncate: 100},
		"cut":            {CutAfter: 100},
		"of another one": {Header: map[string]string{"Content-Range": "bytes 100000-199999/99999999"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := begin(t, nil)
			blob := origin.Random(30, 1<<20)
			r.up.AddBlob("a/b", blob)
			r.up.SetRule(func(q *http.Request) origin.Fault {
				if q.Header.Get("Range") != "" {
					return lie
				}
				return origin.Fault{}
			})
			part := swarm.Pull{Repo: "a/b", Digest: blob.Digest, Want: blob.Bytes(), Off: 100_000, N: 100_000}
			if _, err := r.target("").Pull(r.ctx, part); errors.Is(err, swarm.ErrWrong) {
				t.Errorf("wrong bytes came through: %v", err)
			}
			r.up.SetRule(nil)
			if _, err := r.target("").Pull(r.ctx, part); err != nil {
				t.Errorf("from an honest upstream afterwards: %v", err)
			}
			r.pull("", "a/b", blob)
		})
	}
}

// TestPoisonAcrossUpstreams has one registry plant wrong bytes under the digest
// of another's blob: whole, and in part, which nobody can check.
func TestPoisonAcrossUpstreams(t *testing.T) {
	evil, err := origin.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer evil.Close()
	blob, manifest := origin.Random(40, 1<<20), []byte(`{"schemaVersion":2,"honest":true}`)
	r := begin(t, values{"server": values{"registries": values{"evil.test": values{"host": evil.Address, "scheme": "http"}}}})
	r.up.AddBlob("a/b", blob)
	d := r.up.AddManifest("a/b", "v1", ocispec.MediaTypeImageManifest, manifest)
	wrong := origin.Random(41, 1<<20)
	evil.AddBlobAs("a/b", blob.Digest, blob.Size, wrong)
	evil.AddManifestAs("a/b", d.String(), ocispec.MediaTypeImageManifest, d, []byte(`{"schemaVersion":2,"honest":false}`))

	bad := r.target("")
	bad.Query = "ns=evil.test"
	// A part of a blob is only as good as who it is from.
	part := swarm.Pull{Repo: "a/b", Digest: blob.Digest, Want: wrong.Bytes(), Off: 1000, N: 500_000}
	if _, err := bad.Pull(r.ctx, part); err != nil {
		t.Fatal(err)
	}
	part.Want = blob.Bytes()
	if _, err := r.target("").Pull(r.ctx, part); err != nil {
		t.Errorf("a part of a blob after another registry planted it: %v", err)
	}
	// A whole blob has to be right.
	if _, err := bad.Pull(r.ctx, swarm.Pull{Repo: "a/b", Digest: blob.Digest, Want: wrong.Bytes()}); err == nil {
		t.Error("wrong bytes came through as a whole blob")
	}
	resp, body, err := bad.Get(r.ctx, "a/b/manifests/"+d.String(), nil)
	if err == nil && resp.StatusCode == http.StatusOK && digest.FromBytes(body) != d {
		t.Errorf("a wrong manifest came through: %q", body)
	}
	r.pull("", "a/b", blob)
	resp, body, err = r.target("").Get(r.ctx, "a/b/manifests/"+d.String(), nil)
	if err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(body, manifest) {
		t.Errorf("the honest manifest: %v, %v", resp, err)
	}
}

// TestLyingManifests has manifests whose digest, type or size is not what the
// upstream's header says.
func TestLyingManifests(t *testing.T) {
	r := begin(t, nil)
	honest := []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`)
	d := digest.FromBytes(honest)
	evil := []byte(`{"schemaVersion":2,"evil":true}`)
	accept := map[string]string{"Accept": ocispec.MediaTypeImageManifest + ", " + ocispec.MediaTypeImageIndex}

	r.up.AddManifestAs("by/digest", d.String(), ocispec.MediaTypeImageManifest, d, evil)
	r.up.AddManifestAs("by/tag", "v1", ocispec.MediaTypeImageManifest, d, evil)
	for _, path := range []string{"by/digest/manifests/" + d.String(), "by/tag/manifests/v1"} {
		resp, body, err := r.target("").Get(r.ctx, path, accept)
		if err == nil && resp.StatusCode == http.StatusOK && digest.FromBytes(body).String() != resp.Header.Get("Docker-Content-Digest") {
			t.Errorf("%s: %q is said to be %s", path, body, resp.Header.Get("Docker-Content-Digest"))
		}
		if err == nil && resp.StatusCode == http.StatusOK && strings.Contains(path, "sha256") {
			t.Errorf("%s: %q was given for %s", path, body, d)
		}
	}
	// Afterwards the same digest from who has it.
	r.up.AddManifest("honest/one", "v1", ocispec.MediaTypeImageManifest, honest)
	resp, body, err := r.target("").Get(r.ctx, "honest/one/manifests/"+d.String(), accept)
	if err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(body, honest) {
		t.Errorf("an honest manifest after a lie: %v, %q, %v", resp, body, err)
	}

	r.up.AddManifest("type/confused", "v1", "text/html", honest)
	resp, _, err = r.target("").Get(r.ctx, "type/confused/manifests/v1", accept)
	if err == nil && resp.StatusCode == http.StatusOK && resp.Header.Get("Content-Type") != ocispec.MediaTypeImageManifest {
		t.Errorf("a manifest that says it is %s was served as %s", ocispec.MediaTypeImageManifest, resp.Header.Get("Content-Type"))
	}
}

// TestOversizeManifests has manifests that are larger than any may be, with and
// without saying so.
func TestOversizeManifests(t *testing.T) {
	r := begin(t, nil)
	big, err := json.Marshal(map[string]any{"schemaVersion": 2, "filler": strings.Repeat("x", 32<<20)})
	if err != nil {
		t.Fatal(err)
	}
	r.up.AddManifest("too/big", "v1", ocispec.MediaTypeImageManifest, big)
	before, err := r.cache.Anonymous()
	if err != nil {
		t.Fatal(err)
	}
	for _, unframed := range []bool{false, true} {
		r.up.SetRule(func(*http.Request) origin.Fault { return origin.Fault{Unframed: unframed} })
		for _, reference := range []string{"v1", digest.FromBytes(big).String()} {
			r.refused(r.target(""), "too/big/manifests/"+reference, nil, 413, 500, 502)
		}
	}
	after, err := r.cache.Anonymous()
	if err != nil {
		t.Fatal(err)
	}
	if after-before > 24<<20 {
		t.Errorf("memory went from %d to %d bytes over manifests that are refused", before, after)
	}
}

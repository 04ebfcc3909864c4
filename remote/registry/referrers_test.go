package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/registry"
)

// referrer returns a manifest of an artifact that refers to subject.
func referrer(subject ocispec.Descriptor, artifactType, name string) string {
	text, _ := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{ocispec.DescriptorEmptyJSON},
		Subject: &subject, Annotations: map[string]string{"name": name},
	})
	return string(text)
}

// names returns the annotation "name" of descriptors.
func names(list []ocispec.Descriptor) (all []string) {
	for _, d := range list {
		all = append(all, d.Annotations["name"])
	}
	return all
}

// TestRealReferrers uses a registry without the referrers API: the list is
// kept in an index by this client.
func TestRealReferrers(t *testing.T) {
	host := realRegistry(t)
	ctx := t.Context()
	c := client(t, registry.Config{Credentials: login("u", "p")})
	ref := host + "/team/app"
	if err := c.Push(ctx, ref, ocispec.DescriptorEmptyJSON, strings.NewReader("{}")); err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{},
	})
	subject := manifestDescriptor(string(text))
	if err := c.Push(ctx, ref+":1", subject, bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	list := func(artifactType string, want ...string) {
		t.Helper()
		got, err := c.Referrers(ctx, ref+":1", subject.Digest, artifactType)
		if err != nil || !slices.Equal(names(got), want) {
			t.Errorf("referrers of type %q: %q, %v; want %q", artifactType, names(got), err, want)
		}
	}
	list("")
	push := func(artifactType, name string) {
		t.Helper()
		text := referrer(subject, artifactType, name)
		if err := c.Push(ctx, ref, manifestDescriptor(text), strings.NewReader(text)); err != nil {
			t.Error(err)
		}
	}
	push("type/a", "one")
	push("type/a", "one") // again
	push("type/b", "two")
	list("", "one", "two")
	list("type/b", "two")
	list("type/c")

	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() { push("type/many", fmt.Sprint(i)) })
	}
	wg.Wait()
	if got, err := c.Referrers(ctx, ref, subject.Digest, "type/many"); err != nil || len(got) != 8 {
		t.Errorf("%d referrers pushed in parallel are listed, %v", len(got), err)
	}
	// Other clients find them at the tag of the specification.
	if d, err := c.Resolve(ctx, ref+":"+strings.Replace(subject.Digest.String(), ":", "-", 1)); err != nil || d.MediaType != ocispec.MediaTypeImageIndex {
		t.Errorf("%+v, %v", d, err)
	}
}

// One that supersedes others takes their place in the list that the client keeps.
func TestRealReferrerReplaced(t *testing.T) {
	host := realRegistry(t)
	ctx := t.Context()
	c := client(t, registry.Config{Credentials: login("u", "p")})
	ref := host + "/team/app"
	if err := c.Push(ctx, ref, ocispec.DescriptorEmptyJSON, strings.NewReader("{}")); err != nil {
		t.Fatal(err)
	}
	subject := manifestDescriptor(manifest)
	push := func(artifactType, name, old string) {
		t.Helper()
		text := referrer(subject, artifactType, name)
		err := c.PushReferrer(ctx, ref, manifestDescriptor(text), strings.NewReader(text), func(d ocispec.Descriptor) bool {
			return d.ArtifactType == artifactType && d.Annotations["name"] == old
		})
		if err != nil {
			t.Error(err)
		}
	}
	list := func(want ...string) {
		t.Helper()
		if got, err := c.Referrers(ctx, ref, subject.Digest, ""); err != nil || !slices.Equal(names(got), want) {
			t.Errorf("%q, %v; want %q", names(got), err, want)
		}
	}
	push("type/a", "one", "")
	push("type/b", "one", "one") // another type
	push("type/a", "two", "none")
	list("one", "one", "two")
	push("type/a", "three", "one")
	list("one", "two", "three")
	push("type/a", "three", "three") // it does not supersede itself
	list("one", "two", "three")
	push("type/a", "two", "three") // was there before
	list("one", "two")
	push("type/a", "two", "")
	list("one", "two")
}

// TestReferrersAPI lists two pages of a registry that has the API, and leaves
// keeping the list to it.
func TestReferrersAPI(t *testing.T) {
	subject := manifestDescriptor(manifest)
	entry := func(artifactType, name string) ocispec.Descriptor {
		d := manifestDescriptor(name)
		d.ArtifactType, d.Annotations = artifactType, map[string]string{"name": name}
		return d
	}
	var puts []string
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			puts = append(puts, r.URL.Path)
			io.Copy(io.Discard, r.Body)
			w.Header().Set("OCI-Subject", subject.Digest.String())
			w.WriteHeader(http.StatusCreated)
			return
		}
		if r.URL.Path != "/v2/app/referrers/"+subject.Digest.String() || r.URL.Query().Get("artifactType") != "type/a" {
			t.Errorf("asked for %s", r.URL)
		}
		index := ocispec.Index{Manifests: []ocispec.Descriptor{entry("type/a", "one"), entry("type/b", "two")}}
		if r.URL.Query().Get("page") == "2" {
			index.Manifests = []ocispec.Descriptor{entry("type/a", "three")}
		} else {
			w.Header().Set("Link", "<"+r.URL.Path+`?artifactType=type%2Fa&page=2>; rel="next"`)
		}
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex+"; charset=utf-8")
		json.NewEncoder(w).Encode(index)
	})
	c := client(t, registry.Config{})
	got, err := c.Referrers(t.Context(), host+"/app:1", subject.Digest, "type/a")
	if want := []string{"one", "three"}; err != nil || !slices.Equal(names(got), want) {
		t.Errorf("%q, %v; want %q", names(got), err, want)
	}
	text := referrer(subject, "type/a", "x")
	if err := c.Push(t.Context(), host+"/app", manifestDescriptor(text), strings.NewReader(text)); err != nil || len(puts) != 1 {
		t.Errorf("%v, stored %q", err, puts)
	}
}

func TestReferrersAnswers(t *testing.T) {
	subject := digest.FromString(manifest)
	for _, c := range []struct {
		name, mediaType, body string
		status                int
		part                  string // of the error; "": none
	}{
		{"no API", "text/plain", "404 page not found", 404, ""},
		{"a web page", "text/html", "<html>", 200, ""},
		{"no access", "application/json", "{}", 403, "403"},
		{"broken", "application/json", "", 502, "502"},
		{"no JSON", ocispec.MediaTypeImageIndex, "{", 200, "parsing the index of referrers"},
		{"wrong digest", ocispec.MediaTypeImageIndex, `{"manifests":[{"digest":"sha256:1"}]}`, 200, "digest"},
		{"too large", ocispec.MediaTypeImageIndex, strings.Repeat(" ", registry.MaxManifestSize+1), 200, "more than"},
	} {
		host := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/") {
				http.NotFound(w, r)
				return
			}
			w.Header().Set("Content-Type", c.mediaType)
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		})
		got, err := client(t, registry.Config{}).Referrers(t.Context(), host+"/app", subject, "")
		if len(got) != 0 || (err == nil) != (c.part == "") || err != nil && !strings.Contains(err.Error(), c.part) {
			t.Errorf("%s: %d, %v; want %q", c.name, len(got), err, c.part)
		}
	}
	endless := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		w.Header().Set("Link", "<"+r.URL.Path+`?n=1>; rel=next`)
		io.WriteString(w, `{"manifests":[]}`)
	})
	if _, err := client(t, registry.Config{}).Referrers(t.Context(), endless+"/app", subject, ""); err == nil || !strings.Contains(err.Error(), "pages") {
		t.Errorf("an endless list: %v", err)
	}
}

// TestReferrersOfMirror: what a mirror does not list may be there. Only the
// registry, or what is configured in its place, is believed that nothing is.
func TestReferrersOfMirror(t *testing.T) {
	subject := digest.FromString(manifest)
	list := func(names ...string) http.HandlerFunc {
		var index ocispec.Index
		for _, name := range names {
			kind, name, _ := strings.Cut(name, " ")
			d := manifestDescriptor(name)
			d.ArtifactType, d.Annotations = kind, map[string]string{"name": name}
			index.Manifests = append(index.Manifests, d)
		}
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			json.NewEncoder(w).Encode(index)
		}
	}
	for _, c := range []struct {
		name             string
		mirror, registry http.HandlerFunc
		want             string // names found
		err              string // part of the error; "": none
	}{
		{"no API", status(404), list("type/a one"), "one", ""},
		{"an empty list", list(), list("type/a one"), "one", ""},
		{"others only", list("type/b two"), list("type/a one"), "one", ""},
		{"mirrored", list("type/a one"), status(500), "one", ""},
		{"none anywhere", status(404), status(404), "", ""},
		{"a registry that is down", status(404), status(503), "", "503"},
		{"a registry that refuses", list(), status(403), "", "403"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			hostConfig(t, root, "registry.test", fmt.Sprintf(`
server = "http://%s"

[host."http://%s"]
  capabilities = ["pull", "resolve"]
`, serve(t, c.registry), serve(t, c.mirror)))
			got, err := client(t, registry.Config{HostsDir: root}).Referrers(t.Context(), "registry.test/app:1", subject, "type/a")
			if strings.Join(names(got), " ") != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("found %q, %v; want %q and an error with %q", names(got), err, c.want, c.err)
			}
		})
	}
}

// Another client that replaces the index at the same time is noticed.
func TestReferrersRace(t *testing.T) {
	subject := manifestDescriptor(manifest)
	index := func(manifests ...ocispec.Descriptor) string {
		text, _ := json.Marshal(ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests,
		})
		return string(text)
	}
	other := manifestDescriptor("other")
	current, puts := "", 0
	tag := "/v2/app/manifests/" + strings.Replace(subject.Digest.String(), ":", "-", 1)
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut && r.URL.Path == tag:
			data, _ := io.ReadAll(r.Body)
			current = string(data)
			if puts++; puts == 1 {
				current = index(other)
			}
			w.WriteHeader(http.StatusCreated)
		case r.Method == http.MethodPut:
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusCreated)
		case current == "" || r.URL.Path != tag && !strings.HasSuffix(r.URL.Path, digest.FromString(current).String()):
			http.NotFound(w, r)
		default:
			answerManifest(current, "Content-Type", ocispec.MediaTypeImageIndex)(w, r)
		}
	})
	text := referrer(subject, "type/a", "x")
	if err := client(t, registry.Config{}).Push(t.Context(), host+"/app", manifestDescriptor(text), strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if puts != 2 || !strings.Contains(current, other.Digest.String()) || !strings.Contains(current, manifestDescriptor(text).Digest.String()) {
		t.Errorf("after %d changes the index is %s", puts, current)
	}
}

func FuzzReferrers(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:1","size":1,"artifactType":"y"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		index, err := registry.ParseReferrers(text)
		if err != nil {
			return
		}
		for _, d := range index.Manifests {
			if d.Digest.Validate() != nil || d.Size < 0 {
				t.Errorf("%+v passes", d)
			}
		}
	})
}

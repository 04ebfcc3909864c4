package registry_test

import (
	"bytes"
	"net/http"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/registry"
)

func TestRealMount(t *testing.T) {
	host := realRegistry(t)
	ctx := t.Context()
	c := client(t, registry.Config{Credentials: login("u", "p")})
	data := pattern(100_000)
	desc := descriptor(data)
	if err := c.Push(ctx, host+"/team/base:1", desc, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	exists := func(repo string, want bool) {
		t.Helper()
		if there, err := c.Exists(ctx, host+repo, desc); err != nil || there != want {
			t.Errorf("%s has it: %v, %v; want %v", repo, there, err, want)
		}
	}
	exists("/team/base", true)
	exists("/team/app", false)
	for from, want := range map[string]bool{
		host + "/team/other": false, host + "/team/app": false, "registry.example.com/team/base": false,
	} {
		if ok, err := c.Mount(ctx, host+"/team/app:1", desc, from); err != nil || ok != want {
			t.Errorf("mounting from %s: %v, %v", from, ok, err)
		}
	}
	exists("/team/app", false)
	if ok, err := c.Mount(ctx, host+"/team/app:1", desc, host+"/team/base:latest"); err != nil || !ok {
		t.Errorf("mounting: %v, %v", ok, err)
	}
	exists("/team/app", true)

	wrong := desc
	wrong.Size++
	if _, err := c.Exists(ctx, host+"/team/base", wrong); err == nil {
		t.Error("a blob of another size passes for this one")
	}
}

func TestMountAnswers(t *testing.T) {
	data := pattern(10)
	for _, c := range []struct {
		status  int
		mounted bool
		fails   bool
		deletes int
	}{
		{http.StatusCreated, true, false, 0},
		{http.StatusAccepted, false, false, 1},
		{http.StatusForbidden, false, false, 0},
		{http.StatusMethodNotAllowed, false, false, 0},
		{http.StatusBadGateway, false, true, 0},
		{http.StatusOK, false, true, 0},
	} {
		deletes := 0
		host := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodDelete {
				deletes++
				return
			}
			if r.URL.Query().Get("from") != "b" || r.URL.Query().Get("mount") == "" {
				t.Errorf("query %s", r.URL.RawQuery)
			}
			w.Header().Set("Location", "/v2/a/blobs/uploads/1")
			w.WriteHeader(c.status)
		})
		ok, err := client(t, registry.Config{}).Mount(t.Context(), host+"/a", descriptor(data), host+"/b")
		if ok != c.mounted || (err != nil) != c.fails || deletes != c.deletes {
			t.Errorf("%d: mounted %v, %v, %d sessions cancelled", c.status, ok, err, deletes)
		}
	}
}

// Mounting needs a token for both repositories.
func TestMountScope(t *testing.T) {
	n := newNet()
	s := &tokenServer{}
	n.serve(t, "auth.test", s.ServeHTTP)
	n.serve(t, "registry.test", s.guard(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }))
	ok, err := n.client(t, registry.Config{}).Mount(t.Context(), "registry.test/team/app:1", descriptor(pattern(9)), "registry.test/base")
	if want := "repository:team/app:pull repository:team/app:pull,push repository:base:pull"; !ok || err != nil || s.form != want {
		t.Errorf("%v, %v; asked for a token for %q, want %q", ok, err, s.form, want)
	}
	if len(s.last.URL.Query()["scope"]) != 3 {
		t.Errorf("scopes %q are not one a parameter", s.last.URL.RawQuery)
	}
}

func TestExistsAnswers(t *testing.T) {
	for status, there := range map[int]bool{200: true, 404: false, 500: false, 401: false, 204: false} {
		host := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		got, err := client(t, registry.Config{}).Exists(t.Context(), host+"/a", ocispec.Descriptor{Digest: descriptor(nil).Digest})
		if got != there || (err == nil) != (status == 200 || status == 404) {
			t.Errorf("%d: %v, %v", status, got, err)
		}
	}
}

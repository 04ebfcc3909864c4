package proxy_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/proxy"
)

var sum = string(digest.FromString("x"))

func TestPath(t *testing.T) {
	long := strings.Repeat("a", 250)
	for _, c := range []struct{ path, kind, repository, reference string }{
		{"/v2", "base", "", ""},
		{"/v2/", "base", "", ""},
		{"/v2/library/ubuntu/manifests/latest", "manifests", "library/ubuntu", "latest"},
		{"/v2/ubuntu/manifests/" + sum, "manifests", "ubuntu", sum},
		{"/v2/ubuntu/blobs/" + sum, "blobs", "ubuntu", sum},
		{"/v2/ubuntu/blobs/" + strings.Replace(sum, ":", "%3A", 1), "blobs", "ubuntu", sum},
		{"/v2/ubuntu/blobs/" + strings.Replace(sum, ":", "%3a", 1), "blobs", "ubuntu", sum},
		{"/v2/a/b/c/d/tags/list", "tags", "a/b/c/d", ""},
		{"/v2/a/referrers/" + sum, "referrers", "a", sum},
		{"/v2/a/manifests/manifests/v1", "manifests", "a/manifests", "v1"},
		{"/v2/blobs/blobs/" + sum, "blobs", "blobs", sum},
		{"/v2/a__b/c-d/e---f/g.h/0/manifests/_x.Y-z", "manifests", "a__b/c-d/e---f/g.h/0", "_x.Y-z"},
		{"/v2/" + long + "/tags/list", "tags", long, ""},
	} {
		kind, repository, reference, err := proxy.ParsePath(c.path)
		if err != nil || kind != c.kind || repository != c.repository || reference != c.reference {
			t.Errorf("%s: %q %q %q, %v", c.path, kind, repository, reference, err)
		}
	}
}

func TestPathRefused(t *testing.T) {
	blob := "/blobs/" + sum
	for _, path := range []string{
		"", "/", "/v1/a" + blob, "/v2x/a" + blob, "//v2/a" + blob, "v2/a" + blob, "/v2/_catalog", "/v2/a", "/v2/a/",
		"/v2//a" + blob, "/v2/a/" + blob, "/v2/" + blob, "/v2" + blob, "/v2/a" + blob + "/",
		"/v2/../a" + blob, "/v2/a/../b" + blob, "/v2/a/./b" + blob, "/v2/./a" + blob, "/v2/a/.." + blob,
		"/v2/a%2fb" + blob, "/v2/a%2Fb" + blob, "/v2/%2e%2e/a" + blob, "/v2/a%00" + blob, "/v2/a\x00" + blob,
		"/v2/a%" + blob, "/v2/%61" + blob, "/v2/a%3Ab" + blob, "/v2/a:b" + blob,
		"/v2/A" + blob, "/v2/aB/c" + blob, "/v2/a b" + blob, "/v2/a\\b" + blob, "/v2/a?" + blob, "/v2/a#" + blob,
		"/v2/-a" + blob, "/v2/a-" + blob, "/v2/.a" + blob, "/v2/a." + blob, "/v2/a..b" + blob, "/v2/a._b" + blob,
		"/v2/a___b" + blob, "/v2/_a" + blob, "/v2/a_/b" + blob, "/v2/ä" + blob, "/v2/" + strings.Repeat("a", 256) + blob,
		"/v2/a/blobs/latest", "/v2/a/blobs/sha256:abc", "/v2/a/blobs/" + strings.ToUpper(sum),
		"/v2/a/blobs/sha256:" + strings.Repeat("A", 64), "/v2/a/blobs/sha256:" + strings.Repeat("g", 64),
		"/v2/a/blobs/md5:" + strings.Repeat("a", 32), "/v2/a/blobs/sha512:" + strings.Repeat("a", 128),
		"/v2/a/blobs/uploads/", "/v2/a/blobs/uploads", "/v2/a/tags/lists", "/v2/a/referrers/latest",
		"/v2/a/manifests/", "/v2/a/manifests/.x", "/v2/a/manifests/-x", "/v2/a/manifests/x y",
		"/v2/a/manifests/" + strings.Repeat("x", 129), "/v2/a/manifests/..", "/v2/a/manifests/sha256:", "/v2/a/manifests/x%2Fy",
	} {
		if kind, repository, reference, err := proxy.ParsePath(path); err == nil {
			t.Errorf("%q is %q %q %q", path, kind, repository, reference)
		}
	}
}

// The expressions of the distribution specification.
var (
	specName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	specTag  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// FuzzPath holds what is let through against the grammar, and asks that the path
// which is made of it for the upstream is the one that the client sent.
func FuzzPath(f *testing.F) {
	for _, s := range []string{
		"/v2/", "/v2/a/b/manifests/latest", "/v2/a/blobs/" + sum, "/v2/a%2fb/tags/list", "/v2/a/../b/referrers/" + sum,
		"/v2/a__b/c---d/manifests/" + sum, "/v2/a/blobs/sha256%3A" + sum[7:],
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		kind, repository, reference, err := proxy.ParsePath(path)
		if err != nil {
			return
		}
		if kind == "base" {
			if path != "/v2" && path != "/v2/" {
				t.Fatalf("%q is the base", path)
			}
			return
		}
		if !specName.MatchString(repository) || len(repository) > 255 {
			t.Fatalf("%q has repository %q", path, repository)
		}
		switch kind {
		case "tags":
			reference = "list"
		case "manifests":
			if !specTag.MatchString(reference) && digest.Digest(reference).Validate() != nil {
				t.Fatalf("%q has reference %q", path, reference)
			}
		case "blobs", "referrers":
			if digest.Digest(reference).Validate() != nil {
				t.Fatalf("%q has digest %q", path, reference)
			}
		default:
			t.Fatalf("%q is of kind %q", path, kind)
		}
		again := "/v2/" + repository + "/" + kind + "/" + reference
		if plain, err := url.PathUnescape(path); err != nil || plain != again {
			t.Fatalf("%q became %q", path, again)
		}
	})
}

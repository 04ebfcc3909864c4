package registry

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	distribution "github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// reference is a parsed image reference.
type reference struct {
	ns     string // the host as named, "docker.io" for Docker Hub
	repo   string // "library/redis"
	tag    string
	digest digest.Digest
}

func parseReference(s string) (reference, error) {
	named, err := distribution.ParseNormalizedNamed(s)
	if err != nil {
		return reference{}, fmt.Errorf("parsing reference %q: %w", s, err)
	}
	r := reference{ns: distribution.Domain(named), repo: distribution.Path(named)}
	if t, ok := named.(distribution.Tagged); ok {
		r.tag = t.Tag()
	}
	if d, ok := named.(distribution.Digested); ok {
		r.digest = d.Digest()
	}
	return r, nil
}

// object is what a manifest is asked for by: the digest before the tag.
func (r reference) object() string {
	switch {
	case r.digest != "":
		return r.digest.String()
	case r.tag != "":
		return r.tag
	}
	return "latest"
}

func (r reference) name() string { return r.ns + "/" + r.repo }

// scope is the token scope of the repository, actions as in "pull" or
// "pull,push".
func (r reference) scope(actions string) string {
	return "repository:" + r.repo + ":" + actions
}

// validHost accepts what may stand before the first slash of a reference.
func validHost(h string) bool {
	u, err := url.Parse("https://" + h)
	return err == nil && h != "" && u.Host == h && u.Hostname() != ""
}

// listed reports whether list has host, or has it without its port.
func listed(list []string, host string) bool {
	bare := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		bare = h
	}
	return slices.ContainsFunc(list, func(e string) bool {
		e = strings.Trim(e, "[]")
		return strings.EqualFold(e, host) || strings.EqualFold(e, strings.Trim(bare, "[]"))
	})
}

func loopback(host string) bool { return docker.IsLocalhost(host) }

package proxy

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

var linkNext = regexp.MustCompile(`<([^>]*)>\s*;[^,]*\brel="?next"?`)

// nextPage returns the Link header that leads a client to the next page of a
// list by way of us: path and the query of the upstream's own link, in which
// registries put marks of their own. ns is the upstream the client named, "" if
// it did not. It returns "" at the end of the list, and for what is no link of
// the same list.
func nextPage(h http.Header, path, ns string) string {
	for _, link := range h.Values("Link") {
		m := linkNext.FindStringSubmatch(link)
		if m == nil {
			continue
		}
		u, err := url.Parse(m[1])
		if err != nil || !strings.HasSuffix(u.Path, lastElements(path)) {
			continue
		}
		q := u.Query()
		q.Del("ns")
		if ns != "" {
			q.Set("ns", ns)
		}
		return `<` + path + "?" + q.Encode() + `>; rel="next"`
	}
	return ""
}

// lastElements returns the last two elements of a path, by which a link is
// recognised whatever stands before the API at the upstream.
func lastElements(path string) string {
	slash := strings.LastIndexByte(path, '/')
	return path[strings.LastIndexByte(path[:slash], '/'):]
}

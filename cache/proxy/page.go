package proxy

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

var linkNext = regexp.MustCompile(`<([^>]*)>\s*;[^,]*\brel="?next"?`)

// nextPage returns the query of the next page of the list at path, from the Link
// header of the upstream's answer: registries put marks of their own in it. It
// is "" at the end of the list, and for what is no link of the same list.
func nextPage(h http.Header, path string) string {
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
		return q.Encode()
	}
	return ""
}

// linkTo returns the Link header that leads a client to the next page by way of
// us. ns is the upstream the client named, "" if it did not.
func linkTo(path, query, ns string) string {
	if ns != "" {
		query = strings.TrimPrefix(query+"&ns="+url.QueryEscape(ns), "&")
	}
	return "<" + path + "?" + query + `>; rel="next"`
}

// lastElements returns the last two elements of a path, by which a link is
// recognised whatever stands before the API at the upstream.
func lastElements(path string) string {
	slash := strings.LastIndexByte(path, '/')
	return path[strings.LastIndexByte(path[:slash], '/'):]
}

package load

import (
	"net/http"
	"strings"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// outcome returns what a cache said of itself in the header of an answer: "hit",
// "miss", or another word of it in small letters; "" if it said nothing. The one who
// answers is the last of several.
func outcome(h http.Header) string {
	if v := last(h["Cache-Status"]); v != "" { // RFC 9211
		return cacheStatus(v)
	}
	for _, name := range [...]string{"X-Cache", "X-Cache-Status", "Cf-Cache-Status", "X-Proxy-Cache"} {
		if v := last(h[name]); v != "" {
			return word(v)
		}
	}
	if v := h["Age"]; len(v) > 0 && v[0] != "" && v[0] != "0" { // RFC 9111: it was kept for so many seconds
		return "hit"
	}
	return ""
}

// last returns the last element of lists.
func last(values []string) string {
	if len(values) == 0 {
		return ""
	}
	v := values[len(values)-1]
	return strings.TrimSpace(v[strings.LastIndexByte(v, ',')+1:])
}

// cacheStatus returns the outcome of an element such as "name; hit" or
// "name; fwd=stale; stored".
func cacheStatus(v string) string {
	_, params, _ := strings.Cut(v, ";")
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		switch {
		case strings.EqualFold(name, "hit") && value != "?0":
			return "hit"
		case strings.EqualFold(name, "fwd"):
			value = strings.ToLower(strings.Trim(value, `"`))
			if strings.HasSuffix(value, "miss") { // uri-miss, vary-miss
				return "miss"
			}
			return value
		}
	}
	return ""
}

// word returns the outcome of a value such as "HIT", "Hit from cloudfront",
// "MISS from squid" or "TCP_MEM_HIT from a1-2-3-4.deploy.akamaitechnologies.com".
func word(v string) string {
	first, _, _ := strings.Cut(strings.ToLower(v), " ")
	first = strings.Trim(first, `";:`)
	switch {
	case strings.HasSuffix(first, "hit"):
		return "hit"
	case strings.HasSuffix(first, "miss"):
		return "miss"
	}
	return first
}

// scopeOf returns the scope that a token for an item has to have.
func scopeOf(it *Item) string {
	if it.Kind == trace.Ping {
		return ""
	}
	t := trace.Parse(it.Path)
	switch {
	case t.Repository == "":
		return ""
	case it.Op == Get || it.Op == Head:
		return pullScope(t.Repository)
	}
	return pushScope(t.Repository, "")
}

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
// "name; fwd=stale; fwd-status=304", in the words of other caches: one that asked
// because what it had was too old, and got it confirmed, has "revalidated".
func cacheStatus(v string) string {
	_, params, _ := strings.Cut(v, ";")
	out, confirmed := "", false
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		switch strings.ToLower(name) {
		case "hit":
			if value != "?0" {
				return "hit"
			}
		case "fwd":
			out = strings.ToLower(strings.Trim(value, `"`))
		case "fwd-status":
			confirmed = value == "304"
		}
	}
	switch {
	case out == "stale" && confirmed:
		return "revalidated"
	case out == "stale":
		return "expired"
	case strings.HasSuffix(out, "miss"): // uri-miss, vary-miss
		return "miss"
	case out == "request", out == "method":
		return "bypass"
	}
	return out
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

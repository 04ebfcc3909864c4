package proxy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Bounds of the distribution specification's grammar, in bytes.
const (
	maxRepository = 255
	maxTag        = 128
)

// resource is what the path of a request names.
type resource struct {
	kind       string // KindBase, KindManifest, ...
	repository string
	reference  string        // tag or digest; "" for KindBase and KindTags
	digest     digest.Digest // reference, if it is one
}

// Errors of parsePath.
var (
	errNotAPI        = errors.New("not a path of the distribution API")
	errBadRepository = errors.New("invalid repository name")
	errBadReference  = errors.New("invalid reference")
	errBadDigest     = errors.New("invalid digest")
)

// parsePath parses the path of a URL as the client sent it, still escaped. What
// it returns without error holds only what the grammar of the distribution
// specification allows: no empty, "." or ".." elements, no escapes but that of
// the colon in a digest, no upper case in names.
func parsePath(escaped string) (resource, error) {
	if strings.IndexByte(escaped, '%') >= 0 {
		escaped = unescapeColon(escaped)
	}
	rest, ok := strings.CutPrefix(escaped, "/v2")
	switch {
	case !ok:
		return resource{kind: KindUnknown}, errNotAPI
	case rest == "" || rest == "/":
		return resource{kind: KindBase}, nil
	case rest[0] != '/':
		return resource{kind: KindUnknown}, errNotAPI
	}
	// From the end, because a repository may have elements named like a kind.
	rest = rest[1:]
	slash := strings.LastIndexByte(rest, '/')
	if slash < 0 {
		return resource{kind: KindUnknown}, errNotAPI
	}
	rest, reference := rest[:slash], rest[slash+1:]
	if slash = strings.LastIndexByte(rest, '/'); slash < 0 {
		return resource{kind: KindUnknown}, errNotAPI
	}
	return parseParts(rest[:slash], rest[slash+1:], reference)
}

func parseParts(repository, kind, reference string) (resource, error) {
	r := resource{kind: kind, repository: repository, reference: reference}
	switch {
	case kind == KindTags && reference == "list":
		r.reference = ""
	case kind == KindManifest && strings.IndexByte(reference, ':') < 0:
		if !isTag(reference) {
			return r, fmt.Errorf("%w: tag %.140q", errBadReference, reference)
		}
	case kind == KindManifest, kind == KindBlob, kind == KindReferrers:
		r.digest = digest.Digest(reference)
		if !isDigest(reference) {
			return r, fmt.Errorf("%w %.140q: sha256 is the only algorithm that is served", errBadDigest, reference)
		}
	default:
		return resource{kind: KindUnknown}, errNotAPI
	}
	if !isRepository(repository) {
		return r, fmt.Errorf("%w %.256q", errBadRepository, repository)
	}
	return r, nil
}

// unescapeColon undoes %3A, which some clients make of the colon of a digest.
// Other escapes stay and are refused by the grammar.
func unescapeColon(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "%3A", ":"), "%3a", ":")
}

// isDigest reports whether s is a SHA-256 in its only spelling. It is looked at
// for each request, and faster than digest.Validate, which matches an expression.
func isDigest(s string) bool {
	const prefix = "sha256:"
	if len(s) != len(prefix)+64 || s[:len(prefix)] != prefix {
		return false
	}
	for i := len(prefix); i < len(s); i++ {
		if c := s[i]; !isDigit(c) && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// isTag reports whether s is [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func isTag(s string) bool {
	if s == "" || len(s) > maxTag || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !isLower(c) && !isDigit(c) && (c < 'A' || c > 'Z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// isRepository reports whether s is elements of lower case letters and digits,
// with ".", "_", "__" or any number of "-" between them, joined by "/".
func isRepository(s string) bool {
	if s == "" || len(s) > maxRepository {
		return false
	}
	run := byte('/') // separator before s[i], 0 after a letter or digit
	length := 0      // of that separator
	for i := range len(s) {
		c := s[i]
		if isLower(c) || isDigit(c) {
			run = 0
			continue
		}
		if run == 0 {
			run, length = c, 1
			if c != '/' && c != '.' && c != '_' && c != '-' {
				return false
			}
			continue
		}
		length++
		if c != run || c != '-' && (c != '_' || length > 2) {
			return false
		}
	}
	return run == 0
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

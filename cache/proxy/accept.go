package proxy

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
)

// maxAccept bounds the canonical form that is kept as it is; longer ones are
// named by their hash in keys.
const maxAccept = 1 << 10

// accepts brings Accept headers into a form that is equal where they mean the
// same, and remembers a few, because there are as many as there are clients'
// versions. Safe for parallel use.
type accepts struct {
	mu    sync.RWMutex
	known map[string]string
}

const maxAccepts = 256

// canonical returns the media types of the headers sorted, without double ones,
// joined by ", ". Their order says nothing, by RFC 9110; weights are kept.
func (a *accepts) canonical(values []string) string {
	if len(values) == 0 {
		return ""
	}
	raw := values[0]
	if len(values) > 1 {
		raw = strings.Join(values, ",")
	}
	a.mu.RLock()
	known, ok := a.known[raw]
	a.mu.RUnlock()
	if ok {
		return known
	}
	var list []string
	for item := range strings.SplitSeq(raw, ",") {
		if item = strings.ToLower(strings.Join(strings.Fields(item), "")); item != "" {
			list = append(list, item)
		}
	}
	slices.Sort(list)
	known = strings.Join(slices.Compact(list), ", ")
	if len(raw) > 4*maxAccept {
		return known
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == nil || len(a.known) >= maxAccepts {
		a.known = make(map[string]string)
	}
	a.known[raw] = known
	return known
}

// acceptClass is the canonical form of an Accept header as a part of a key.
func acceptClass(canonical string) string {
	if len(canonical) <= maxAccept {
		return canonical
	}
	sum := sha256.Sum256([]byte(canonical))
	return hex.EncodeToString(sum[:])
}

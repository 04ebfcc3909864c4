package registry

import (
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// targetLife is how long a redirect target without a known expiry is
	// used, which is upstream's time.
	targetLife = 5 * time.Minute
	// targetMargin is how long before a known expiry it is not used any more.
	targetMargin = 30 * time.Second
	// maxTargets bounds the targets kept.
	maxTargets = 4096
)

// targets remembers where hosts redirected blob reads to, which saves a round
// trip for each further read.
type targets struct {
	mu sync.Mutex
	m  map[targetKey]*target
}

type targetKey struct {
	origin, repo string
	digest       digest.Digest
}

type target struct {
	url     *url.URL
	from    *url.URL // the registry's address, for the Referer
	expires time.Time
}

func newTargets() *targets { return &targets{m: make(map[targetKey]*target)} }

// lookup returns the target for key, or nil.
func (t *targets) lookup(key targetKey) *target {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := t.m[key]
	if found != nil && !time.Now().Before(found.expires) {
		delete(t.m, key)
		return nil
	}
	return found
}

// put remembers a target that worked.
func (t *targets) put(key targetKey, to, from *url.URL) {
	now := time.Now()
	expires := now.Add(targetLife)
	if e, ok := expiry(to.Query()); ok {
		expires = e.Add(-targetMargin)
	}
	if !now.Before(expires) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.m) >= maxTargets {
		t.makeRoom(now)
	}
	t.m[key] = &target{to, from, expires}
}

// makeRoom drops what has expired, else a tenth of all; t.mu is held.
func (t *targets) makeRoom(now time.Time) {
	for k, v := range t.m {
		if !now.Before(v.expires) {
			delete(t.m, k)
		}
	}
	for k := range t.m {
		if len(t.m) <= maxTargets*9/10 {
			return
		}
		delete(t.m, k)
	}
}

// drop forgets a target that failed, unless there is a newer one.
func (t *targets) drop(key targetKey, failed *target) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m[key] == failed {
		delete(t.m, key)
	}
}

// expiry returns when a signed URL expires: S3 and Google say when they signed
// and for how many seconds, CloudFront and older S3 a Unix time, Azure a date.
func expiry(q url.Values) (time.Time, bool) {
	for _, p := range []string{"X-Amz-", "X-Goog-"} {
		signed, err := time.Parse("20060102T150405Z", q.Get(p+"Date"))
		if err != nil {
			continue
		}
		if s, err := strconv.ParseUint(q.Get(p+"Expires"), 10, 31); err == nil {
			return signed.Add(time.Duration(s) * time.Second), true
		}
	}
	if s, err := strconv.ParseInt(q.Get("Expires"), 10, 64); err == nil {
		return time.Unix(s, 0), true
	}
	if t, err := time.Parse(time.RFC3339, q.Get("se")); err == nil {
		return t, true
	}
	return time.Time{}, false
}

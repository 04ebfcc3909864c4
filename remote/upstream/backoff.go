package upstream

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxBackoffs bounds how many wishes to be left alone are remembered.
const maxBackoffs = 4096

// backoffs are the registries that asked to be left alone, by the credential they
// said it to. A GET that was too much leaves HEAD be: there are registries that count
// only the former, and permission to what is in the cache can still be asked for.
type backoffs struct {
	limit time.Duration
	salt  [sha256.Size]byte

	mu   sync.Mutex
	held map[backoffKey]backoff
}

type backoffKey struct {
	host       string
	credential [sha256.Size]byte
	head       bool
}

type backoff struct {
	until  time.Time
	status int
}

func newBackoffs(limit time.Duration) *backoffs {
	b := &backoffs{limit: limit, held: make(map[backoffKey]backoff)}
	_, _ = rand.Read(b.salt[:]) // never fails
	return b
}

func (b *backoffs) key(r *http.Request) backoffKey {
	text := append(b.salt[:len(b.salt):len(b.salt)], r.Header.Get("Authorization")...)
	return backoffKey{hostOf(r.URL), sha256.Sum256(text), r.Method == http.MethodHead}
}

// note remembers what a response asks for, and reports whether it says that the
// caller asks too often.
func (b *backoffs) note(r *http.Request, resp *http.Response) bool {
	now := time.Now()
	wait := retryAfter(resp.Header.Get("Retry-After"), now)
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
	case resp.StatusCode == http.StatusServiceUnavailable && wait > 0:
	default:
		return false
	}
	if wait = min(wait, b.limit); wait <= 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.held) >= maxBackoffs {
		b.makeRoom(now)
	}
	k := b.key(r)
	if until := now.Add(wait); until.After(b.held[k].until) {
		b.held[k] = backoff{until, resp.StatusCode}
	}
	return true
}

// makeRoom drops what is over, or anything; b.mu is held.
func (b *backoffs) makeRoom(now time.Time) {
	for k, v := range b.held {
		if !now.Before(v.until) {
			delete(b.held, k)
		}
	}
	for k := range b.held {
		if len(b.held) < maxBackoffs {
			break
		}
		delete(b.held, k)
	}
}

// answer returns the answer to a request while its registry wants to be left
// alone, or nil.
func (b *backoffs) answer(r *http.Request) *http.Response {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.held) == 0 {
		return nil
	}
	now := time.Now()
	k := b.key(r)
	found := b.held[k]
	if k.head = true; now.Before(b.held[k].until) && b.held[k].until.After(found.until) {
		found = b.held[k]
	}
	if !now.Before(found.until) {
		return nil
	}
	return limited(r, found, now)
}

// limited makes an answer in the distribution specification's form.
func limited(r *http.Request, b backoff, now time.Time) *http.Response {
	code := "TOOMANYREQUESTS"
	if b.status != http.StatusTooManyRequests {
		code = "UNAVAILABLE"
	}
	text := fmt.Sprintf(`{"errors":[{"code":%q,"message":"the registry asked to wait, and was not asked again"}]}`, code)
	seconds := int64((b.until.Sub(now) + time.Second - 1) / time.Second)
	resp := &http.Response{
		Status:     fmt.Sprintf("%d %s", b.status, http.StatusText(b.status)),
		StatusCode: b.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{
			"Content-Type": {"application/json"},
			"Retry-After":  {strconv.FormatInt(seconds, 10)},
		},
		Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)),
		Request: bare(r),
	}
	if r.Method == http.MethodHead {
		resp.Body = http.NoBody
	}
	return resp
}

// until returns the latest end of what each host asked for.
func (b *backoffs) until() map[string]time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[string]time.Time)
	for k, v := range b.held {
		if v.until.After(out[k.host]) {
			out[k.host] = v.until
		}
	}
	return out
}

// retryAfter parses the header, RFC 9110 section 10.2.3: seconds or a date. What it
// is not is 0.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if n, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if value != "" && strings.Trim(value, "0123456789") == "" {
		return 1<<31*time.Second - 1 // more than fits
	}
	t, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(0, t.Sub(now)), 1<<31*time.Second)
}

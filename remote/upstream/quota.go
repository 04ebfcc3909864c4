package upstream

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxQuotas bounds how many hosts' limits are remembered.
const maxQuotas = 256

// quotas are what registries say of how much may be asked of them.
type quotas struct {
	mu    sync.Mutex
	hosts map[string]HostStats
}

// note remembers the RateLimit headers of an answer.
func (q *quotas) note(host string, h http.Header) {
	limit, window := parseQuota(h.Get("RateLimit-Limit"))
	remaining, w := parseQuota(h.Get("RateLimit-Remaining"))
	if limit < 0 && remaining < 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.hosts == nil {
		q.hosts = make(map[string]HostStats)
	}
	if _, ok := q.hosts[host]; !ok && len(q.hosts) >= maxQuotas {
		var oldest string
		for name, s := range q.hosts {
			if oldest == "" || s.SeenAt.Before(q.hosts[oldest].SeenAt) {
				oldest = name
			}
		}
		delete(q.hosts, oldest)
	}
	q.hosts[host] = HostStats{
		Host: host, Limit: limit, Remaining: remaining, Window: max(window, w), SeenAt: time.Now(),
	}
}

// parseQuota parses a number of requests, after which there may be the seconds of
// the window they are for: "100;w=21600". It returns -1 for what is none.
func parseQuota(value string) (n int64, window time.Duration) {
	first, _, _ := strings.Cut(value, ",")
	number, rest, _ := strings.Cut(first, ";")
	u, err := strconv.ParseUint(strings.TrimSpace(number), 10, 62)
	if err != nil {
		return -1, 0
	}
	for _, p := range strings.Split(rest, ";") {
		if s, ok := strings.CutPrefix(strings.TrimSpace(p), "w="); ok {
			if w, err := strconv.ParseUint(s, 10, 31); err == nil {
				window = time.Duration(w) * time.Second
			}
		}
	}
	return int64(u), window
}

// stats returns the hosts by name, with when they want to be asked again.
func (q *quotas) stats(until map[string]time.Time) []HostStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]HostStats, 0, len(q.hosts))
	for host, s := range q.hosts {
		s.BackoffUntil = until[host]
		out = append(out, s)
	}
	for host, t := range until {
		if _, ok := q.hosts[host]; !ok {
			out = append(out, HostStats{Host: host, Limit: -1, Remaining: -1, BackoffUntil: t})
		}
	}
	slices.SortFunc(out, func(a, b HostStats) int { return strings.Compare(a.Host, b.Host) })
	return out
}

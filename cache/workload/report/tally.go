package report

import (
	"cmp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// Bounds of what others name: a registry may send any text as an outcome or a status.
const (
	maxOutcomes = 16
	maxFailures = 256
	maxExample  = 300 // bytes
	maxOutcome  = 32  // bytes
)

// tally is a summary that grows.
type tally struct {
	registries []string
	runs       int
	start, end time.Time // of the first request sent, of the last answer
	groups     map[Key]*Group
	outcomes   map[string]string
	sizes      map[string]*Histogram
	lag        *Histogram
	onTime     int64
	failures   map[failureKey]*Failure
	series     Series
	generator  load.Stats
}

type failureKey struct {
	cause          load.Cause
	kind, registry string
	status         int
}

func newTally(registries []string) *tally {
	return &tally{
		registries: registries,
		runs:       1,
		groups:     map[Key]*Group{},
		outcomes:   map[string]string{},
		sizes:      map[string]*Histogram{},
		lag:        newHistogram(times),
		failures:   map[failureKey]*Failure{},
	}
}

// add counts a result.
func (t *tally) add(r load.Result) {
	k := t.key(r)
	g := t.group(k)
	g.Count++
	g.Bytes += r.Bytes
	sent := !r.Sent.IsZero()
	if sent {
		g.Service.record(micros(r.Service))
		g.Latency.record(micros(r.Latency))
		t.lag.record(micros(r.Late))
		if !k.Failed && r.Late <= OnTime {
			t.onTime++
		}
		t.extend(r.Sent, r.Sent.Add(r.Service))
	}
	if k.Failed {
		t.fail(k, r)
	} else if r.Op == load.Get || r.Op == load.Push {
		t.size(k).record(r.Bytes)
	}
	t.slice(k, r, sent)
}

// key returns which group r belongs to.
func (t *tally) key(r load.Result) Key {
	k := Key{
		Kind: r.Kind.String(), Op: string(r.Op), Ranged: r.Ranged,
		Status: class(r.Status), Outcome: t.outcome(r.Outcome),
		Failed: r.Cause != load.CauseNone,
		Cut:    r.Cause == load.CauseAborted || r.Cause == load.CauseLost,
	}
	if r.Registry >= 0 && r.Registry < len(t.registries) {
		k.Registry = t.registries[r.Registry]
	}
	return k
}

func (t *tally) group(k Key) *Group {
	g := t.groups[k]
	if g == nil {
		g = &Group{Key: k, Service: newHistogram(times), Latency: newHistogram(times)}
		t.groups[k] = g
	}
	return g
}

// outcome returns name as text, or "other" where there are too many already.
func (t *tally) outcome(name string) string {
	if known, ok := t.outcomes[name]; ok {
		return known
	}
	if len(t.outcomes) >= maxOutcomes {
		return "other"
	}
	t.outcomes[name] = clean(name, maxOutcome)
	return t.outcomes[name]
}

// clean returns at most n bytes of s, which others wrote, as text on one line.
func clean(s string, n int) string {
	s = strings.ToValidUTF8(s[:min(len(s), n)], "?")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// size returns the histogram for sizes like those of k. Those of ranges are not the
// sizes of objects.
func (t *tally) size(k Key) *Histogram {
	name := k.Kind
	if k.Ranged {
		name += " range"
	}
	h := t.sizes[name]
	if h == nil {
		h = newHistogram(sizes)
		t.sizes[name] = h
	}
	return h
}

func (t *tally) fail(k Key, r load.Result) {
	fk := failureKey{r.Cause, k.Kind, k.Registry, r.Status}
	if t.failures[fk] == nil && len(t.failures) >= maxFailures {
		fk.status = 0
	}
	t.failure(fk, 1, r.Err)
}

// failure counts n failures. Of their texts the first in order is kept, so that it does
// not matter which of two was counted first.
func (t *tally) failure(k failureKey, n int64, text string) {
	f := t.failures[k]
	if f == nil {
		f = &Failure{Cause: k.cause, Kind: k.kind, Registry: k.registry, Status: k.status}
		t.failures[k] = f
	}
	f.Count += n
	text = clean(text, maxExample)
	if f.Example == "" || text != "" && text < f.Example {
		f.Example = text
	}
}

// slice counts r in the slices of time when it was due, sent, and ended.
func (t *tally) slice(k Key, r load.Result, sent bool) {
	if r.Intended.IsZero() {
		return // nobody knows when
	}
	s := t.series.at(r.Intended)
	s.Due++
	if sent && !k.Cut {
		if s.Latency == nil {
			s.Latency = newHistogram(sliceTimes)
		}
		s.Latency.record(micros(r.Latency))
	}
	if sent {
		t.series.at(r.Sent).Sent++
		s = t.series.at(r.Sent.Add(r.Service))
	}
	s.Bytes += r.Bytes
	if k.Failed {
		s.Failed++
		return
	}
	s.Succeeded++
	if hit, known := Hit(k.Outcome); known {
		if hit {
			s.Hits++
			s.HitBytes += r.Bytes
		} else {
			s.Misses++
			s.MissBytes += r.Bytes
		}
	}
}

func (t *tally) extend(start, end time.Time) {
	if t.start.IsZero() || start.Before(t.start) {
		t.start = start
	}
	if end.After(t.end) {
		t.end = end
	}
}

// absorb adds what s says, which is valid.
func (t *tally) absorb(s *Summary) {
	for i := range s.Groups {
		g := t.group(s.Groups[i].Key)
		t.outcome(g.Outcome)
		g.add(&s.Groups[i])
	}
	for name, h := range s.Sizes {
		if t.sizes[name] == nil {
			t.sizes[name] = newHistogram(sizes)
		}
		t.sizes[name].merge(h)
	}
	for _, f := range s.Failures {
		t.failure(failureKey{f.Cause, f.Kind, f.Registry, f.Status}, f.Count, f.Example)
	}
	for _, r := range s.Registries {
		if !slices.Contains(t.registries, r) {
			t.registries = append(slices.Clip(t.registries), r)
		}
	}
	t.onTime += s.OnTime
	t.generator = t.generator.With(s.Generator)
	if !s.Start.IsZero() {
		t.extend(s.Start, s.Start.Add(s.Elapsed))
	}
	t.lag.merge(s.Lag)
	t.series.merge(&s.Series)
}

// summary returns what was counted; it shares nothing with t.
func (t *tally) summary() *Summary {
	s := &Summary{
		Version: version, Registries: slices.Clone(t.registries), Runs: t.runs,
		Start: t.start, Elapsed: t.end.Sub(t.start),
		Sizes: make(map[string]*Histogram, len(t.sizes)), Lag: t.lag.clone(), OnTime: t.onTime,
		Series: t.series.clone(), Generator: t.generator,
	}
	for _, g := range t.groups {
		c := *g
		c.Service, c.Latency = g.Service.clone(), g.Latency.clone()
		s.Groups = append(s.Groups, c)
	}
	slices.SortFunc(s.Groups, func(a, b Group) int { return a.compare(b.Key) })
	for name, h := range t.sizes {
		s.Sizes[name] = h.clone()
	}
	for _, f := range t.failures {
		s.Failures = append(s.Failures, *f)
	}
	slices.SortFunc(s.Failures, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Cause, b.Cause), cmp.Compare(a.Kind, b.Kind),
			cmp.Compare(a.Registry, b.Registry), cmp.Compare(a.Status, b.Status))
	})
	return s
}

func micros(d time.Duration) int64 { return int64((d + time.Microsecond/2) / time.Microsecond) }

// class returns the class of a status code.
func class(status int) string {
	if status < 100 || status > 599 {
		return "none"
	}
	return [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"}[status/100-1]
}

// Hit says whether a cache had what it answered with, known whether the outcome says
// that at all. The names are those of the registry cache, of nginx and of Cloudflare.
func Hit(outcome string) (hit, known bool) {
	switch outcome {
	case "hit", "stale", "revalidated", "updating":
		return true, true
	case "miss", "partial", "expired", "bypass":
		return false, true
	}
	return false, false
}

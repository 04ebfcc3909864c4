package report

import (
	"cmp"
	"strings"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// add adds what o counts.
func (g *Group) add(o *Group) {
	g.Count += o.Count
	g.Bytes += o.Bytes
	g.Service.merge(o.Service)
	g.Latency.merge(o.Latency)
}

// Name says what the requests of a group are: "blob get", "blob get range", "ping".
func (k Key) Name() string {
	name := k.Kind + " " + k.Op
	if k.Kind == "ping" && k.Op == string(load.Get) {
		name = k.Kind
	}
	if k.Ranged {
		name += " range"
	}
	return name
}

func (k Key) compare(o Key) int {
	flag := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	return cmp.Or(strings.Compare(k.Kind, o.Kind), strings.Compare(k.Op, o.Op), cmp.Compare(flag(k.Ranged), flag(o.Ranged)),
		cmp.Compare(flag(k.Failed), flag(o.Failed)), strings.Compare(k.Registry, o.Registry), strings.Compare(k.Status, o.Status),
		strings.Compare(k.Outcome, o.Outcome), cmp.Compare(flag(k.Cut), flag(o.Cut)))
}

// Total returns the groups that match says yes to as one, with the name given as its
// kind.
func (s *Summary) Total(name string, match func(Key) bool) Group {
	sum := Group{Key: Key{Kind: name}, Service: newHistogram(times), Latency: newHistogram(times)}
	for i := range s.Groups {
		if match(s.Groups[i].Key) {
			sum.add(&s.Groups[i])
		}
	}
	return sum
}

// Ended returns all requests that a registry ended, well or not: those that the run
// cut off say nothing about it.
func (s *Summary) Ended() Group {
	return s.Total("all", func(k Key) bool { return !k.Cut })
}

// Succeeded returns all requests that did.
func (s *Summary) Succeeded() Group {
	return s.Total("succeeded", func(k Key) bool { return !k.Failed })
}

// Failed returns all requests that did not succeed, for whatever reason.
func (s *Summary) Failed() Group {
	return s.Total("failed", func(k Key) bool { return k.Failed })
}

// Kinds returns the requests that succeeded by what they are, and those that failed
// without being cut off as the last.
func (s *Summary) Kinds() []Group {
	all := s.by(func(k Key) string { return k.Name() }, func(k Key) bool { return !k.Failed })
	if failed := s.Total("failed", func(k Key) bool { return k.Failed && !k.Cut }); failed.Count > 0 {
		all = append(all, failed)
	}
	return all
}

// Outcomes returns the requests that succeeded by what a cache said of itself; there
// are none if none did.
func (s *Summary) Outcomes() []Group {
	return s.by(func(k Key) string { return k.Outcome }, func(k Key) bool { return !k.Failed && k.Outcome != "" })
}

// ByRegistry returns the requests that succeeded by registry.
func (s *Summary) ByRegistry() []Group {
	return s.by(func(k Key) string { return k.Registry }, func(k Key) bool { return !k.Failed })
}

// by returns one group for each name that the groups which match have, in the order in
// which they come.
func (s *Summary) by(name func(Key) string, match func(Key) bool) []Group {
	var names []string
	seen := map[string]bool{}
	for _, g := range s.Groups {
		if n := name(g.Key); match(g.Key) && !seen[n] {
			seen[n] = true
			names = append(names, n)
		}
	}
	all := make([]Group, len(names))
	for i, n := range names {
		all[i] = s.Total(n, func(k Key) bool { return match(k) && name(k) == n })
	}
	return all
}

// HitRatio returns the share of requests that a cache had, and of their bytes, among
// those that succeeded and say so; known is false if none do.
func (s *Summary) HitRatio() (requests, bytes float64, known bool) {
	hits := s.Total("hit", func(k Key) bool { hit, _ := Hit(k.Outcome); return hit && !k.Failed })
	all := s.Total("known", func(k Key) bool { _, known := Hit(k.Outcome); return known && !k.Failed })
	return Ratio(float64(hits.Count), float64(all.Count)), Ratio(float64(hits.Bytes), float64(all.Bytes)), all.Count > 0
}

// Ratio returns a/b, 0 where that has no meaning.
func Ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

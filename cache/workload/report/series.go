package report

import (
	"time"
)

// maxSlices bounds a series; slices become wider when there would be more.
const maxSlices = 600

// minWidth is that of the slices of a short run. All widths are multiples of it by a
// power of two.
const minWidth = 100 * time.Millisecond

// Series is counts over time, in slices of equal width. Slices of all runs begin at
// multiples of their width since 1970, so that those of several clients merge exactly.
type Series struct {
	Width  time.Duration `json:"width"` // ns
	First  int64         `json:"first"` // number of the first slice: it begins First*Width after 1970
	Slices []Slice       `json:"slices"`
}

// Slice is what went on in a slice of time.
type Slice struct {
	Due       int64 `json:"due"`       // requests that were to be sent in it
	Sent      int64 `json:"sent"`      //
	Succeeded int64 `json:"succeeded"` // that ended in it
	Failed    int64 `json:"failed"`    // that ended in it, or were due in it and never sent
	Bytes     int64 `json:"bytes"`     // of bodies that ended in it
	Hits      int64 `json:"hits"`      // of those that ended in it, what a cache called a hit
	Misses    int64 `json:"misses"`
	HitBytes  int64 `json:"hitBytes"`
	MissBytes int64 `json:"missBytes"`
	// Latency is of the requests that were due in it, whenever they ended, without
	// those that the run cut off. Microseconds.
	Latency *Histogram `json:"latency,omitempty"`
}

// add adds what o counts.
func (s *Slice) add(o *Slice) {
	s.Due += o.Due
	s.Sent += o.Sent
	s.Succeeded += o.Succeeded
	s.Failed += o.Failed
	s.Bytes += o.Bytes
	s.Hits += o.Hits
	s.Misses += o.Misses
	s.HitBytes += o.HitBytes
	s.MissBytes += o.MissBytes
	if o.Latency.Count() == 0 {
		return
	}
	if s.Latency == nil {
		s.Latency = newHistogram(sliceTimes)
	}
	s.Latency.merge(o.Latency)
}

// Start returns when slice i begins.
func (s *Series) Start(i int) time.Time {
	return time.Unix(0, (s.First+int64(i))*int64(s.Width)).UTC()
}

// number returns which slice t is in.
func (s *Series) number(t time.Time) int64 { return floorDiv(t.UnixNano(), int64(s.Width)) }

// at returns the slice that t is in. It is valid until the next call.
func (s *Series) at(t time.Time) *Slice {
	if s.Width == 0 {
		s.Width = minWidth
	}
	n := s.number(t)
	for !s.has(n, n) {
		if s.room(n, n) {
			s.grow(n, n)
			break
		}
		s.widen()
		n = s.number(t)
	}
	return &s.Slices[n-s.First]
}

func (s *Series) last() int64 { return s.First + int64(len(s.Slices)) - 1 }

// has says whether there are slices from number a to b.
func (s *Series) has(a, b int64) bool {
	return len(s.Slices) > 0 && a >= s.First && b <= s.last()
}

// room says whether there may be slices from number a to b too.
func (s *Series) room(a, b int64) bool {
	if len(s.Slices) > 0 {
		a, b = min(a, s.First), max(b, s.last())
	}
	return b-a < maxSlices
}

// grow adds empty slices so that there are those from number a to b, for which there
// is room.
func (s *Series) grow(a, b int64) {
	if len(s.Slices) == 0 {
		s.First = a
	}
	if a < s.First {
		s.Slices = append(make([]Slice, s.First-a, maxSlices), s.Slices...)
		s.First = a
	}
	if b > s.last() {
		s.Slices = append(s.Slices, make([]Slice, b-s.last())...)
	}
}

// widen makes slices twice as wide.
func (s *Series) widen() {
	wide := Series{Width: 2 * s.Width, First: floorDiv(s.First, 2)}
	wide.Slices = make([]Slice, 0, maxSlices)
	for i := range s.Slices {
		n := floorDiv(s.First+int64(i), 2) - wide.First
		if n == int64(len(wide.Slices)) {
			wide.Slices = append(wide.Slices, s.Slices[i])
			continue
		}
		wide.Slices[n].add(&s.Slices[i])
	}
	*s = wide
}

// merge adds o, which is left as it is.
func (s *Series) merge(o *Series) {
	if len(o.Slices) == 0 {
		return
	}
	c := o.clone()
	if s.Width == 0 {
		s.Width = minWidth
	}
	for s.Width != c.Width || !s.room(c.First, c.last()) {
		if c.Width < s.Width {
			c.widen()
			continue
		}
		s.widen()
	}
	s.grow(c.First, c.last())
	for i := range c.Slices {
		s.Slices[c.First-s.First+int64(i)].add(&c.Slices[i])
	}
}

// follow moves s, the series of a later run, to where prior ends.
func (s *Series) follow(prior *Series) {
	for s.Width < prior.Width {
		s.widen()
	}
	for prior.Width < s.Width {
		prior.widen()
	}
	s.First = prior.last() + 1
}

// Coarse returns s in slices so wide that there are n at most, n from 2.
func (s *Series) Coarse(n int) Series {
	c := s.clone()
	for len(c.Slices) > max(n, 2) {
		c.widen()
	}
	return c
}

func (s *Series) clone() Series {
	c := *s
	c.Slices = append([]Slice(nil), s.Slices...)
	for i := range c.Slices {
		if c.Slices[i].Latency != nil {
			c.Slices[i].Latency = c.Slices[i].Latency.clone()
		}
	}
	return c
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// version is that of the JSON form.
const version = 1

// ErrEmpty says that there is nothing to merge.
var ErrEmpty = errors.New("no summaries")

// Read reads the JSON form of a summary.
func Read(r io.Reader) (*Summary, error) {
	var s Summary
	d := json.NewDecoder(r)
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("reading summary: %w", err)
	}
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("reading summary: %w", err)
	}
	return &s, nil
}

// WriteJSON writes s in the form that Read reads.
func (s *Summary) WriteJSON(w io.Writer) error {
	if err := json.NewEncoder(w).Encode(s); err != nil {
		return fmt.Errorf("writing summary: %w", err)
	}
	return nil
}

// validate checks what Merge and the writers rely on, and completes what is empty.
func (s *Summary) validate() error {
	if s.Version != version {
		return fmt.Errorf("version %d, want %d", s.Version, version)
	}
	if s.Elapsed < 0 {
		return fmt.Errorf("elapsed %d is negative", s.Elapsed)
	}
	if s.Sizes == nil {
		s.Sizes = map[string]*Histogram{}
	}
	fit := func(h **Histogram, g geometry) error {
		if *h == nil {
			*h = newHistogram(g)
		}
		return (*h).fits(g)
	}
	if err := fit(&s.Lag, times); err != nil {
		return fmt.Errorf("lag: %w", err)
	}
	for name, h := range s.Sizes {
		if err := fit(&h, sizes); err != nil {
			return fmt.Errorf("sizes of %s: %w", name, err)
		}
		s.Sizes[name] = h
	}
	for i := range s.Groups {
		g := &s.Groups[i]
		if err := errors.Join(fit(&g.Service, times), fit(&g.Latency, times)); err != nil {
			return fmt.Errorf("group %s: %w", g.Name(), err)
		}
	}
	return s.Series.validate()
}

// validate checks that s is one that a recorder can have made.
func (s *Series) validate() error {
	if len(s.Slices) == 0 {
		*s = Series{}
		return nil
	}
	w := s.Width / minWidth
	if len(s.Slices) > maxSlices || s.Width%minWidth != 0 || w < 1 || w&(w-1) != 0 {
		return fmt.Errorf("series of %d slices of %d ns", len(s.Slices), s.Width)
	}
	if most := int64(1<<62) / int64(s.Width); s.First < -most || s.First > most {
		return fmt.Errorf("series begins with slice %d of %d ns", s.First, s.Width)
	}
	for i := range s.Slices {
		if h := s.Slices[i].Latency; h != nil {
			if err := h.fits(sliceTimes); err != nil {
				return fmt.Errorf("slice %d: %w", i, err)
			}
		}
	}
	return nil
}

// Merge returns one summary of all, exactly: counts and histograms are those that one
// recorder of all results would have. Runs that overlap in time are taken for parts of
// one, as those of several masters are. Runs that do not are laid one behind the other
// in order of time, so that rates are of the time that was measured. The error says
// that a summary is not valid.
func Merge(all ...*Summary) (*Summary, error) {
	if len(all) == 0 {
		return nil, ErrEmpty
	}
	given := all
	all = slices.Clone(all)
	for i, s := range all {
		if err := s.validate(); err != nil {
			return nil, fmt.Errorf("merging summary %d: %w", i, err)
		}
	}
	slices.SortStableFunc(all, func(a, b *Summary) int { return a.Start.Compare(b.Start) })
	sum := newTally(nil)
	sum.runs = 0
	for len(all) > 0 {
		n := overlapping(all)
		part := newTally(nil)
		part.runs = 0
		for _, s := range all[:n] {
			part.absorb(s)
			part.runs = max(part.runs, s.Runs)
		}
		sum.append(part)
		all = all[n:]
	}
	out := sum.summary()
	out.describe(given)
	return out, nil
}

// describe takes over the title and the settings that all have in common, and all
// notes.
func (s *Summary) describe(of []*Summary) {
	s.Title = of[0].Title
	s.Settings = slices.Clone(of[0].Settings)
	for _, o := range of {
		if o.Title != s.Title {
			s.Title = ""
		}
		s.Settings = slices.DeleteFunc(s.Settings, func(x Setting) bool { return !slices.Contains(o.Settings, x) })
		for _, n := range o.Notes {
			if !slices.Contains(s.Notes, n) {
				s.Notes = append(s.Notes, n)
			}
		}
	}
}

// overlapping returns how many of all, which are in order of their starts, are parts of
// one run.
func overlapping(all []*Summary) int {
	end := all[0].Start.Add(all[0].Elapsed)
	for i, s := range all[1:] {
		if !s.Start.Before(end) {
			return i + 1
		}
		if e := s.Start.Add(s.Elapsed); e.After(end) {
			end = e
		}
	}
	return len(all)
}

// append adds a later run as if it had begun when t ended.
func (t *tally) append(later *tally) {
	s := later.summary()
	if !t.start.IsZero() && !s.Start.IsZero() {
		s.Start = t.end
	}
	if len(t.series.Slices) > 0 && len(s.Series.Slices) > 0 {
		s.Series.follow(&t.series)
	}
	// What was under way at a time was so in one run, not in all of them together.
	under := max(t.generator.MaxInFlight, s.Generator.MaxInFlight)
	left := s.Generator.InFlight
	t.absorb(s)
	t.generator.MaxInFlight, t.generator.InFlight = under, left
	t.runs += later.runs
}

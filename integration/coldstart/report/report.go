// Package report turns measured cold starts into a table, CSV, JSON and a plot.
package report

import (
	"cmp"
	"slices"
)

// Run is one start.
type Run struct {
	// Image, Line and Variant say what was measured.
	Image   string `json:"image"`
	Line    string `json:"line"`
	Variant string `json:"variant"`
	// Pull and Ready are seconds from the start of the pull: to its end, and
	// until the service was available.
	Pull  float64 `json:"pull_seconds"`
	Ready float64 `json:"ready_seconds"`
	// Bytes and Requests crossed the line until nothing did any more.
	Bytes    int64 `json:"bytes"`
	Requests int   `json:"requests"`
	// Asked are reads of the start, Missed those of them that waited for the
	// registry.
	Asked  float64 `json:"reads"`
	Missed float64 `json:"reads_from_registry"`
}

// Floor is the least that a cold start of an image over a line can take.
type Floor struct {
	Image string `json:"image"`
	Line  string `json:"line"`
	// Bytes are those of the blocks that the start touches, each compressed.
	Bytes int64 `json:"bytes"`
	// Goodput is what one large download gets, in bytes a second.
	Goodput float64 `json:"goodput"`
	// Warm is the seconds that a start takes with everything cached, pull
	// included.
	Warm float64 `json:"warm_seconds"`
}

// Seconds is the floor.
func (f Floor) Seconds() float64 { return float64(f.Bytes)/f.Goodput + f.Warm }

// Report is what a benchmark measured.
type Report struct {
	Runs   []Run   `json:"runs"`
	Floors []Floor `json:"floors"`
}

// Summary is the median, by Ready, of runs of the same.
type Summary struct {
	Run
	// Runs is how many there were.
	Runs int
	// Floor is Ready divided by the floor, 0 if that is not known.
	Floor float64
}

// Summaries returns a summary of each image, line and variant in the order in
// which they were first measured.
func (r Report) Summaries() []Summary {
	type key struct{ image, line, variant string }
	var order []key
	runs := map[key][]Run{}
	for _, run := range r.Runs {
		k := key{run.Image, run.Line, run.Variant}
		if runs[k] == nil {
			order = append(order, k)
		}
		runs[k] = append(runs[k], run)
	}
	var out []Summary
	for _, k := range order {
		of := runs[k]
		slices.SortStableFunc(of, func(a, b Run) int { return cmp.Compare(a.Ready, b.Ready) })
		s := Summary{Run: of[(len(of)-1)/2], Runs: len(of)}
		if f, ok := r.floor(k.image, k.line); ok {
			s.Floor = s.Ready / f.Seconds()
		}
		out = append(out, s)
	}
	return out
}

func (r Report) floor(image, line string) (Floor, bool) {
	for _, f := range r.Floors {
		if f.Image == image && f.Line == line {
			return f, true
		}
	}
	return Floor{}, false
}

// Paired returns the median of what the runs of one variant took, each divided by
// what the run of another one took that was made just before or after it, and the
// number of such pairs; 0 if there are none. The variants are to have taken turns.
func (r Report) Paired(image, line, variant, other string) (ratio float64, pairs int) {
	var a, b, ratios []float64
	for _, run := range r.Runs {
		switch {
		case run.Image != image || run.Line != line:
		case run.Variant == variant:
			a = append(a, run.Ready)
		case run.Variant == other:
			b = append(b, run.Ready)
		}
	}
	for i := range min(len(a), len(b)) {
		ratios = append(ratios, a[i]/b[i])
	}
	if len(ratios) == 0 {
		return 0, 0
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2], len(ratios)
}

// group is what was measured of an image over a line.
type group struct {
	image, line string
	summaries   []Summary
}

func (r Report) groups() []group {
	var out []group
	for _, s := range r.Summaries() {
		i := slices.IndexFunc(out, func(g group) bool { return g.image == s.Image && g.line == s.Line })
		if i < 0 {
			out = append(out, group{image: s.Image, line: s.Line})
			i = len(out) - 1
		}
		out[i].summaries = append(out[i].summaries, s)
	}
	return out
}

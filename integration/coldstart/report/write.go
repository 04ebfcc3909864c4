package report

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Table writes the medians for people, and for each image and line what its
// floor consists of.
func (r Report) Table(w io.Writer) error {
	var b strings.Builder
	for _, g := range r.groups() {
		fmt.Fprintf(&b, "\n%s, %s", g.image, g.line)
		if f, ok := r.floor(g.image, g.line); ok {
			fmt.Fprintf(&b, ": floor %.2f s = %.2f MB at %.2f MB/s + %.2f s warm", f.Seconds(), float64(f.Bytes)/1e6, f.Goodput/1e6, f.Warm)
		}
		fmt.Fprintf(&b, "\n%-26s %4s %9s %9s %8s %9s %9s %8s %9s\n", "", "runs", "pull s", "ready s", "/ floor", "MB", "requests", "reads", "missed %")
		for _, s := range g.summaries {
			ratio, missed := "", ""
			if s.Floor > 0 {
				ratio = fmt.Sprintf("%.2f", s.Floor)
			}
			if s.Asked > 0 {
				missed = fmt.Sprintf("%.2f", 100*s.Missed/s.Asked)
			}
			fmt.Fprintf(&b, "%-26s %4d %9.2f %9.2f %8s %9.2f %9d %8.0f %9s\n", s.Variant, s.Runs, s.Pull, s.Ready, ratio,
				float64(s.Bytes)/1e6, s.Requests, s.Asked, missed)
		}
	}
	r.traces(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// Variants that make up the table of starts with and without a trace.
const (
	Lazy      = "lazy"
	Traced    = "trace"
	Warm      = "warm"
	WarmTrace = "warm, trace"
)

// traces writes what a trace does, cold and warm.
func (r Report) traces(b *strings.Builder) {
	fmt.Fprintf(b, "\n%-28s %12s %12s %12s %12s %24s\n", "ready s", "cold, none", "cold, trace", "warm, none", "warm, trace", "trace / none, in pairs")
	for _, g := range r.groups() {
		fmt.Fprintf(b, "%-28s", g.image+", "+g.line)
		for _, variant := range []string{Lazy, Traced, Warm, WarmTrace} {
			cell := ""
			for _, s := range g.summaries {
				if s.Variant == variant {
					cell = fmt.Sprintf("%.2f", s.Ready)
				}
			}
			fmt.Fprintf(b, " %12s", cell)
		}
		if ratio, pairs := r.Paired(g.image, g.line, WarmTrace, Warm); pairs > 0 {
			fmt.Fprintf(b, " %24s", fmt.Sprintf("%.2f (%d)", ratio, pairs))
		}
		b.WriteString("\n")
	}
}

// CSV writes a line for each run.
func (r Report) CSV(w io.Writer) error {
	c := csv.NewWriter(w)
	c.Write([]string{"image", "line", "variant", "pull_seconds", "ready_seconds", "bytes", "requests", "reads", "reads_from_registry", "floor_seconds"}) //nolint:errcheck // Error reports it
	for _, run := range r.Runs {
		floor := ""
		if f, ok := r.floor(run.Image, run.Line); ok {
			floor = decimal(f.Seconds())
		}
		c.Write([]string{run.Image, run.Line, run.Variant, decimal(run.Pull), decimal(run.Ready), //nolint:errcheck // Error reports it
			strconv.FormatInt(run.Bytes, 10), strconv.Itoa(run.Requests), decimal(run.Asked), decimal(run.Missed), floor})
	}
	c.Flush()
	return c.Error()
}

func decimal(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// JSON writes everything.
func (r Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "\t")
	return e.Encode(r)
}

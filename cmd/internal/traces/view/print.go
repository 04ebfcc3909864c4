package view

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

// steps is how many lines tell how the bytes add up.
const steps = 10

// Print writes the report for people: each record only if records is set.
func (r *Report) Print(w io.Writer, records bool) error {
	if len(r.Paths) > 0 {
		return r.printPaths(w)
	}
	fmt.Fprintf(w, "%s: %d reads of %s, %s without what is read again\n", r.Name, r.Reads, terminal.Bytes(r.Bytes), terminal.Bytes(r.Distinct))
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if r.Time != nil {
		fmt.Fprintf(tw, "recorded\t%s\n", r.Time.Format(time.RFC3339))
	}
	if p := r.Plan; p != nil {
		data := "without data"
		if p.Data > 0 {
			data = "with " + terminal.Bytes(p.Data) + " of data"
		}
		fmt.Fprintf(tw, "plan\t%d ranges, %s of the layers, %s\n", p.Extents, terminal.Bytes(p.Bytes), data)
	}
	if r.Skipped > 0 {
		fmt.Fprintf(tw, "skipped\t%d records that are no reads of anything\n", r.Skipped)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(tw, "note\t%s\n", n)
	}
	fmt.Fprintln(tw)
	r.printLayers(tw)
	fmt.Fprintln(tw)
	if records {
		r.printRecords(tw)
	} else {
		r.printSteps(tw)
	}
	return tw.Flush()
}

func (r *Report) printPaths(w io.Writer) error {
	fmt.Fprintf(w, "%s: a list of %d files\n", r.Name, len(r.Paths))
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note  %s\n", n)
	}
	for _, p := range r.Paths {
		if _, err := fmt.Fprintln(w, p); err != nil {
			return err
		}
	}
	return nil
}

func (r *Report) printLayers(w io.Writer) {
	fmt.Fprint(w, "LAYER\tBLOB\tREADS\tBYTES\tDISTINCT\tUP TO")
	if r.Plan != nil {
		fmt.Fprint(w, "\tRANGES\tPLANNED")
	}
	fmt.Fprintln(w)
	for _, l := range r.Layers {
		name := "-"
		if l.Digest != "" {
			name = l.Digest.Algorithm().String() + ":" + l.Digest.Encoded()[:12]
		}
		fmt.Fprintf(w, "%d\t%s\t%d\t%s\t%s\t%s", l.Index, name, l.Reads,
			terminal.Bytes(l.Bytes), terminal.Bytes(l.Distinct), terminal.Bytes(l.End))
		if r.Plan != nil {
			fmt.Fprintf(w, "\t%d\t%s of %s", l.Extents, terminal.Bytes(l.Planned), terminal.Bytes(l.Size))
		}
		fmt.Fprintln(w)
	}
}

// printSteps writes how the bytes add up in the course of the start.
func (r *Report) printSteps(w io.Writer) {
	fmt.Fprintln(w, "READS\tDISTINCT")
	last := 0
	for i := 1; i <= steps; i++ {
		n := len(r.Records) * i / steps
		if n == last {
			continue
		}
		last = n
		fmt.Fprintf(w, "%d\t%s\n", n, terminal.Bytes(r.Records[n-1].Total))
	}
}

func (r *Report) printRecords(w io.Writer) {
	fmt.Fprintln(w, "READ\tLAYER\tOFFSET\tBYTES\tNEW\tCUMULATIVE")
	for i, rec := range r.Records {
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%d\n", i, rec.Layer, rec.Off, rec.Count, rec.New, rec.Total)
	}
}

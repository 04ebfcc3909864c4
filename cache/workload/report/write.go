package report

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// quantiles are those that tables have.
var quantiles = []float64{.5, .9, .99, .999}

// WriteText writes s for people. It begins with the lines of the original replayer,
// whose figures are of requests that succeeded: latency there is service time.
func (s *Summary) WriteText(w io.Writer) error {
	var b bytes.Buffer
	ok, failed := s.Succeeded(), s.Failed()
	fmt.Fprintln(&b, "Statistics")
	fmt.Fprintf(&b, "Successful Requests: %d\n", ok.Count)
	fmt.Fprintf(&b, "Failed Requests: %d\n", failed.Count)
	fmt.Fprintf(&b, "Duration: %s\n", decimal(s.Elapsed.Seconds()))
	fmt.Fprintf(&b, "Data Transfered: %d bytes\n", ok.Bytes) //nolint:misspell // as the original has it
	fmt.Fprintf(&b, "Average Latency: %s\n", decimal(ok.Service.Mean()/1e6))
	fmt.Fprintf(&b, "%% requests on time: %s\n", decimal(Ratio(float64(s.OnTime), float64(ok.Count))))
	fmt.Fprintf(&b, "Throughput: %s requests/second\n", decimal(Ratio(float64(ok.Count), s.Elapsed.Seconds())))
	s.writeTimes(&b)
	s.writeFailures(&b)
	s.writeCache(&b)
	s.writeSender(&b)
	for _, n := range s.Notes {
		fmt.Fprintf(&b, "Note: %s\n", n)
	}
	if _, err := b.WriteTo(w); err != nil {
		return fmt.Errorf("writing summary: %w", err)
	}
	return nil
}

// decimal writes a number in full, as scripts want it.
func decimal(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// writeTimes writes quantiles by kind, and by outcome and registry where there are
// several.
func (s *Summary) writeTimes(b *bytes.Buffer) {
	if len(s.Groups) == 0 {
		return
	}
	b.WriteString("\nLatency is from when a request was due to its last byte, service from when it was sent.\n")
	var table bytes.Buffer
	t := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\trequests\tbytes\tlatency p50\tp90\tp99\tp99.9\tmax\tservice p50\tp90\tp99\tp99.9\tmax\t\n")
	// Names are to the left, which a tabwriter does not do beside numbers to the right.
	parts := [][]Group{append([]Group{s.Ended()}, s.Kinds()...)}
	for _, part := range [][]Group{s.Outcomes(), s.ByRegistry()} {
		if len(part) > 1 {
			parts = append(parts, part)
		}
	}
	wide := 0
	for _, g := range slices.Concat(parts...) {
		wide = max(wide, utf8.RuneCountInString(g.Kind))
	}
	for i, part := range parts {
		if i > 0 {
			fmt.Fprintln(t, strings.Repeat("\t", 13))
		}
		for _, g := range part {
			g.writeTimes(t, wide)
		}
	}
	_ = t.Flush() // a buffer takes everything
	for line := range strings.Lines(table.String()) {
		fmt.Fprintln(b, strings.TrimRight(line, " \n"))
	}
}

// writeTimes writes a line of the table, its name as wide as said.
func (g Group) writeTimes(w io.Writer, wide int) {
	fmt.Fprintf(w, "%-*s\t%d\t%s\t", wide, g.Kind, g.Count, Bytes(g.Bytes))
	for _, h := range []*Histogram{g.Latency, g.Service} {
		for _, q := range quantiles {
			fmt.Fprintf(w, "%s\t", Time(h.Quantile(q)))
		}
		fmt.Fprintf(w, "%s\t", Time(h.Max()))
	}
	fmt.Fprintln(w)
}

func (s *Summary) writeFailures(b *bytes.Buffer) {
	if len(s.Failures) == 0 {
		return
	}
	b.WriteString("\nFailures\n")
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, f := range s.Failures {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\n", f.Count, f.Reason(), f.Kind, f.Registry, f.Example)
	}
	_ = t.Flush()
}

// Reason returns the cause of f with the status, if there was one.
func (f Failure) Reason() string {
	if f.Status == 0 {
		return string(f.Cause)
	}
	return fmt.Sprintf("%s %d", f.Cause, f.Status)
}

func (s *Summary) writeCache(b *bytes.Buffer) {
	if requests, bytes, known := s.HitRatio(); known {
		fmt.Fprintf(b, "\nHit ratio: %.4f of requests, %.4f of bytes\n", requests, bytes)
	}
}

// writeSender writes how well requests were sent, which decides whether the rest is
// of the registry.
func (s *Summary) writeSender(b *bytes.Buffer) {
	g := s.Generator
	fmt.Fprintf(b, "\nSender: %d requests, at most %d under way, late by %s p50, %s p99, %s at most\n",
		g.Sent, g.MaxInFlight, Time(s.Lag.Quantile(.5)), Time(s.Lag.Quantile(.99)), Time(s.Lag.Max()))
	for _, why := range g.Saturated {
		fmt.Fprintf(b, "SATURATED: %s: the times may be the sender's and not the registry's\n", why)
	}
}

// Bytes writes a number of bytes with three digits, as "1.23 MiB".
func Bytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), 0
	for v >= 999.5 && unit+1 < len(binary) {
		v, unit = v/1024, unit+1
	}
	return digits(v) + " " + binary[unit]
}

var binary = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}

// Time writes microseconds with three digits, as "1.23 ms".
func Time(us int64) string {
	switch v := float64(us); {
	case us < 1000:
		return fmt.Sprintf("%d µs", us)
	case v < 999.5e3:
		return digits(v/1e3) + " ms"
	case v < 99.95e6:
		return digits(v/1e6) + " s"
	default:
		return time.Duration(us * 1e3).Round(time.Second).String()
	}
}

// digits writes three digits of v, which is less than 1000.
func digits(v float64) string {
	switch {
	case v < 9.995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 99.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// WriteCSV writes a line for each group of requests: its key, counts, bytes and
// quantiles of service time and latency in seconds.
func (s *Summary) WriteCSV(w io.Writer) error {
	c := csv.NewWriter(w)
	head := []string{"kind", "op", "ranged", "status", "registry", "outcome", "failed", "cut", "requests", "bytes"}
	for _, of := range []string{"service", "latency"} {
		head = append(head, of+"_mean", of+"_p50", of+"_p90", of+"_p99", of+"_p99.9", of+"_max")
	}
	_ = c.Write(head) // Flush says what went wrong
	for _, g := range s.Groups {
		line := []string{
			g.Kind, g.Op, strconv.FormatBool(g.Ranged), g.Status, g.Registry, g.Outcome, strconv.FormatBool(g.Failed),
			strconv.FormatBool(g.Cut), strconv.FormatInt(g.Count, 10), strconv.FormatInt(g.Bytes, 10),
		}
		for _, h := range []*Histogram{g.Service, g.Latency} {
			line = append(line, decimal(h.Mean()/1e6))
			for _, q := range quantiles {
				line = append(line, decimal(float64(h.Quantile(q))/1e6))
			}
			line = append(line, decimal(float64(h.Max())/1e6))
		}
		_ = c.Write(line)
	}
	return flush(c)
}

// WriteSeriesCSV writes a line for each slice of time: when it begins in seconds since
// 1970, its width in seconds, counts, and quantiles of latency in seconds.
func (s *Summary) WriteSeriesCSV(w io.Writer) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{
		"start", "width", "due", "sent", "succeeded", "failed", "bytes", "hits", "misses", "hit_bytes", "miss_bytes",
		"latency_p50", "latency_p99", "latency_max",
	})
	for i, x := range s.Series.Slices {
		start := s.Series.Start(i)
		line := []string{decimal(float64(start.UnixMilli()) / 1e3), decimal(s.Series.Width.Seconds())}
		for _, n := range []int64{x.Due, x.Sent, x.Succeeded, x.Failed, x.Bytes, x.Hits, x.Misses, x.HitBytes, x.MissBytes} {
			line = append(line, strconv.FormatInt(n, 10))
		}
		for _, us := range []int64{x.Latency.Quantile(.5), x.Latency.Quantile(.99), x.Latency.Max()} {
			line = append(line, decimal(float64(us)/1e6))
		}
		_ = c.Write(line)
	}
	return flush(c)
}

func flush(c *csv.Writer) error {
	c.Flush()
	if err := c.Error(); err != nil {
		return fmt.Errorf("writing CSV: %w", err)
	}
	return nil
}

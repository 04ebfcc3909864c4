package simulate

import (
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"text/tabwriter"

	units "github.com/docker/go-units"
)

// WriteText writes the report as tables for people.
func (r *Report) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%d requests of %d objects, %s, by %d clients\n", r.Requests, r.Objects, r.amount(r.Bytes), r.Nodes)
	fmt.Fprintf(w, "With room for everything %.4f are hits (bytes %.4f).\n", r.Most.Ratio(), r.Most.ByteRatio())
	if r.Ranged > 0 {
		fmt.Fprintf(w, "%d requests were for a part of an object, and count like those for all of it that was ever read.\n", r.Ranged)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	if len(r.Cells) > 0 {
		fmt.Fprint(t, "\nPOLICY\tSIZE\tROOM\tHITS\tBYTE HITS\tBLOBS\tMANIFESTS\tEVICTED\tEXPIRED\t\n")
	}
	for _, c := range r.Cells {
		if c.Error != "" {
			continue // below, where there is room
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%.4f\t%.4f\t%s\t%s\t%d\t%d\t\n", c.Policy, c.Size, r.amount(c.Capacity),
			c.All.Ratio(), c.All.ByteRatio(), part(c.Kinds["blob"]), part(c.Kinds["manifest"]), c.Evicted, c.Expired)
		if c.Bound != nil {
			fmt.Fprintf(t, "at most\t%s\t%s\t%.4f\t%.4f\t\t\t\t\t\n", c.Size, r.amount(c.Capacity), c.Bound.Ratio(), c.Bound.ByteRatio())
		}
	}
	for _, c := range r.Cells {
		if c.Error != "" {
			fmt.Fprintf(t, "%s at %s was not simulated: %s\n", c.Policy, c.Size, c.Error)
		}
	}
	if len(r.Levels) > 0 {
		fmt.Fprint(t, "\nMEMORY\tDISK\tMEMORY HITS\tDISK HITS\tTOGETHER\tBYTES\t\n")
	}
	for _, l := range r.Levels {
		fmt.Fprintf(t, "%s\t%s\t%.4f\t%.4f\t%.4f\t%.4f\t\n", r.amount(l.Memories), r.amount(l.Disks),
			l.MemoryHits.Ratio(), l.DiskHits.Ratio(), l.All.Ratio(), l.All.ByteRatio())
	}
	if len(r.PerNode) > 0 {
		fmt.Fprint(t, "\nEACH NODE\tITS HITS\tBYTES\tSHARED\tSIZE\tITS HITS\tBYTES\t\n")
	}
	for _, n := range r.PerNode {
		if len(n.Shared) == 0 {
			fmt.Fprintf(t, "%s %s\t%.4f\t%.4f\t\t\t\t\t\n", n.Policy, r.amount(n.Capacity), n.All.Ratio(), n.All.ByteRatio())
		}
		for _, s := range n.Shared {
			fmt.Fprintf(t, "%s %s\t%.4f\t%.4f\t%s\t%s\t%.4f\t%.4f\t\n", n.Policy, r.amount(n.Capacity), n.All.Ratio(), n.All.ByteRatio(),
				s.Policy, r.amount(s.Capacity), s.All.Ratio(), s.All.ByteRatio())
		}
	}
	r.writeCluster(t)
	r.writePrefetch(t)
	r.writeCurves(t)
	return t.Flush()
}

// writePrefetch writes what prefetching did.
func (r *Report) writePrefetch(t io.Writer) {
	if len(r.Prefetch) > 0 {
		fmt.Fprint(t, "\nPUSHED FOR\tFETCHED FOR\tLAYER HITS\tBYTES\tFETCHES\tOF BYTES\tUSED\tKEPT AT MOST\t\n")
	}
	for _, p := range r.Prefetch {
		used := Tally{Requests: p.Good + p.Bad, Hits: p.Good}
		fmt.Fprintf(t, "%v\t%v\t%.4f\t%.4f\t%d\t%s\t%.4f\t%s\t\n", p.Pushed, p.Fetched, p.Layers.Ratio(), p.Layers.ByteRatio(),
			p.Fetches, units.BytesSize(float64(p.FetchedBytes)), used.Ratio(), units.BytesSize(float64(p.Peak)))
	}
}

// writeCurves writes some points of the curves.
func (r *Report) writeCurves(t io.Writer) {
	for _, c := range r.Curves {
		fmt.Fprintf(t, "\nMISS RATIO OF LRU, %s\tMISSES\tBYTE MISSES\t\n", c.Name)
		if len(c.Points) == 0 {
			fmt.Fprint(t, "the sample has no object\t\t\t\n")
		}
		for i := 0; i < len(c.Points); i += max(1, len(c.Points)/10) {
			p := c.Points[i]
			fmt.Fprintf(t, "%s\t%.4f\t%.4f\t\n", r.amount(p.Capacity), p.Miss, p.ByteMiss)
		}
		if c.MeanError > 0 {
			fmt.Fprintf(t, "mean distance to exact\t%.4f\t\t\n", c.MeanError)
			fmt.Fprintf(t, "from 1%% of all on\t%.4f\t\t\n", c.LargeError)
		}
	}
}

func part(t Tally) string {
	if t.Requests == 0 {
		return ""
	}
	return strconv.FormatFloat(t.Ratio(), 'f', 4, 64)
}

// amount returns a size in the unit of the report.
func (r *Report) amount(n int64) string {
	if r.Unit {
		return strconv.FormatInt(n, 10) + " objects"
	}
	return units.BytesSize(float64(n))
}

// WriteCSV writes the cells of the report.
func (r *Report) WriteCSV(w io.Writer) error {
	rows := [][]string{{"policy", "size", "capacity", "kind", "requests", "hits", "hit_ratio", "bytes", "hit_bytes", "byte_hit_ratio"}}
	for _, cell := range r.Cells {
		for _, kind := range slices.Insert(slices.Sorted(maps.Keys(cell.Kinds)), 0, "all") {
			t := cell.Kinds[kind]
			if kind == "all" {
				t = cell.All
			}
			if t.Requests == 0 {
				continue
			}
			rows = append(rows, []string{cell.Policy, cell.Size.String(), strconv.FormatInt(cell.Capacity, 10), kind,
				strconv.FormatUint(t.Requests, 10), strconv.FormatUint(t.Hits, 10), strconv.FormatFloat(t.Ratio(), 'f', 6, 64),
				strconv.FormatInt(t.Bytes, 10), strconv.FormatInt(t.HitBytes, 10), strconv.FormatFloat(t.ByteRatio(), 'f', 6, 64)})
		}
	}
	return csv.NewWriter(w).WriteAll(rows)
}

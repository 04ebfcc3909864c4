package report_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/integration/coldstart/report"
)

// measured has two lines, and three runs of a variant of which the second is
// the median.
func measured() report.Report {
	return report.Report{
		Runs: []report.Run{
			{Image: "a & b", Line: "25mbit", Variant: "traced", Pull: 0.1, Ready: 9, Bytes: 9e6, Requests: 10, Asked: 1000, Missed: 30},
			{Image: "a & b", Line: "25mbit", Variant: "traced", Pull: 0.2, Ready: 5, Bytes: 8e6, Requests: 11, Asked: 1000, Missed: 20},
			{Image: "a & b", Line: "25mbit", Variant: "traced", Pull: 0.3, Ready: 4, Bytes: 7e6, Requests: 12, Asked: 1000, Missed: 10},
			{Image: "a & b", Line: "25mbit", Variant: "full", Pull: 59, Ready: 60, Bytes: 180e6, Requests: 8},
			{Image: "a & b", Line: "unshaped", Variant: "full", Pull: 5, Ready: 6, Bytes: 180e6, Requests: 8},
		},
		Floors: []report.Floor{{Image: "a & b", Line: "25mbit", Bytes: 6e6, Goodput: 3e6, Warm: 2}},
	}
}

func TestSummaries(t *testing.T) {
	s := measured().Summaries()
	if len(s) != 3 {
		t.Fatalf("%d summaries, want one for each of 3 variants and lines: %+v", len(s), s)
	}
	if got := s[0]; got.Ready != 5 || got.Requests != 11 || got.Runs != 3 || got.Floor != 1.25 {
		t.Errorf("traced is %+v, want the run of 5 s, 1.25 times the floor, of 3", got)
	}
	if s[2].Floor != 0 {
		t.Errorf("%v times a floor that was not measured", s[2].Floor)
	}
}

func TestPaired(t *testing.T) {
	var r report.Report
	for _, took := range [][2]float64{{1, 2}, {8, 8}, {6, 2}, {3, 2}} {
		r.Runs = append(r.Runs,
			report.Run{Image: "i", Line: "l", Variant: "warm", Ready: took[1]},
			report.Run{Image: "i", Line: "other", Variant: "warm", Ready: 1000},
			report.Run{Image: "i", Line: "l", Variant: "warm, trace", Ready: took[0]})
	}
	if ratio, pairs := r.Paired("i", "l", "warm, trace", "warm"); ratio != 1.5 || pairs != 4 {
		t.Errorf("%v of %d pairs, want 1.5, the upper median of 0.5, 1, 1.5 and 3", ratio, pairs)
	}
	if ratio, pairs := r.Paired("i", "l", "warm", "none"); ratio != 0 || pairs != 0 {
		t.Errorf("%v of %d pairs where there are none", ratio, pairs)
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	if err := measured().Table(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"a & b, 25mbit: floor 4.00 s = 6.00 MB at 3.00 MB/s + 2.00 s warm",
		"traced                        3      0.20      5.00     1.25      8.00        11     1000      2.00\n",
		"full                          1     59.00     60.00    15.00    180.00         8        0          \n",
		"a & b, unshaped\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
}

func TestCSV(t *testing.T) {
	var b bytes.Buffer
	if err := measured().CSV(&b); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(lines) != 6 {
		t.Fatalf("%d lines, %v; want a head and 5 runs", len(lines), err)
	}
	if want := []string{"a & b", "25mbit", "traced", "0.1", "9", "9000000", "10", "1000", "30", "4"}; !reflect.DeepEqual(lines[1], want) {
		t.Errorf("the first run is %q, want %q", lines[1], want)
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := measured().JSON(&b); err != nil {
		t.Fatal(err)
	}
	var back report.Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || !reflect.DeepEqual(back, measured()) {
		t.Errorf("read back it is %+v, %v", back, err)
	}
}

func TestSVG(t *testing.T) {
	for name, r := range map[string]report.Report{"measured": measured(), "nothing": {}} {
		var b bytes.Buffer
		if err := r.SVG(&b); err != nil {
			t.Fatal(err)
		}
		bars, floors := 0, 0
		d := xml.NewDecoder(&b)
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: not XML: %v", name, err)
			}
			start, _ := token.(xml.StartElement)
			for _, a := range start.Attr {
				if a.Name.Local == "fill" && a.Value == "#4a7ab5" {
					bars++
				}
				if a.Name.Local == "stroke" && a.Value == "#c33" {
					floors++
				}
			}
		}
		if bars != len(r.Summaries()) || floors != len(r.Floors) {
			t.Errorf("%s: %d bars and %d floors, want %d and %d", name, bars, floors, len(r.Summaries()), len(r.Floors))
		}
	}
}

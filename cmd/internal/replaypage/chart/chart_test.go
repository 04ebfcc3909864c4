package chart_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/reprise-containers/reprise/cmd/internal/replaypage/chart"
)

// drawn is what is found in a chart.
type drawn struct {
	x, y  []string // at the axes
	lines map[string]string
	rows  [][]string
	title string
	desc  string
}

// draw draws c and reads it as a browser does.
func draw(t *testing.T, c chart.Chart) (d drawn) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(string(c.HTML())))
	if err != nil {
		t.Fatal(err)
	}
	d.lines = map[string]string{}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		class := attr(n, "class")
		switch {
		case n.Data == "span" && attr(n.Parent, "class") == "yticks":
			d.y = append(d.y, text(n))
		case n.Data == "span" && attr(n.Parent, "class") == "xticks":
			d.x = append(d.x, text(n))
		case n.Data == "path" && strings.HasPrefix(class, "line "):
			d.lines[strings.TrimPrefix(class, "line ")] = attr(n, "d")
		case n.Data == "title":
			d.title = text(n)
		case n.Data == "desc":
			d.desc = text(n)
		case n.Data == "tr":
			var row []string
			for c := range n.ChildNodes() {
				row = append(row, text(c))
			}
			d.rows = append(d.rows, row)
		}
	}
	return d
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func text(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return b.String()
}

func points(xy ...float64) (out []chart.Point) {
	for i := 0; i < len(xy); i += 2 {
		out = append(out, chart.Point{X: xy[i], Y: xy[i+1]})
	}
	return out
}

// TestTicks: the numbers at axes are round, a few, and in units that people read.
func TestTicks(t *testing.T) {
	linear, log := chart.Linear, chart.Log
	for name, c := range map[string]struct {
		axis   chart.Axis
		lo, hi float64
		want   string
	}{
		"counts":        {chart.Axis{}, 0, 7, "0 2 4 6 8"},
		"many":          {chart.Axis{}, 0, 43_210, "0|20 k|40 k|60 k"},
		"millions":      {chart.Axis{}, 0, 3e6, "0|1 M|2 M|3 M"},
		"less than one": {chart.Axis{}, 0, .3, "0 0.1 0.2 0.3"},
		"nothing":       {chart.Axis{}, 0, 0, "0 0.2 0.4 0.6 0.8 1"},
		"bytes":         {chart.Axis{Unit: chart.Bytes}, 0, 3 << 20, "0|1 MiB|2 MiB|3 MiB"},
		"few bytes":     {chart.Axis{Unit: chart.Bytes}, 0, 400, "0|100 B|200 B|300 B|400 B"},
		"KiB":           {chart.Axis{Unit: chart.Bytes}, 0, 900_000, "0|200 KiB|400 KiB|600 KiB|800 KiB|1000 KiB"},
		"shares":        {chart.Axis{Unit: chart.Share, Max: 1}, 0, 1, "0 %|20 %|40 %|60 %|80 %|100 %"},
		"small shares":  {chart.Axis{Unit: chart.Share}, 0, .04, "0 %|1 %|2 %|3 %|4 %"},
		"latency":       {chart.Axis{Unit: chart.Micros, Scale: log}, 80, 2e6, "100 µs|1 ms|10 ms|100 ms|1 s"},
		"one decade":    {chart.Axis{Unit: chart.Micros, Scale: log}, 1100, 8000, "1 ms|2 ms|5 ms|10 ms"},
		"one value":     {chart.Axis{Unit: chart.Micros, Scale: log}, 500, 500, "500 µs|1 ms|2 ms|5 ms"},
		"an hour":       {chart.Axis{Unit: chart.Micros, Scale: log}, 1, 3.6e9, "1 µs|100 µs|10 ms|1 s|100 s"},
		"sizes":         {chart.Axis{Unit: chart.Bytes, Scale: log}, 1, 1 << 30, "1 B|1 KiB|1 MiB|1 GiB"},
		"objects":       {chart.Axis{Scale: log}, 1000, 108_325, "1 k|10 k|100 k"},
		"zero on log":   {chart.Axis{Scale: log}, 0, 0, "1 2 5 10"},
		"hundred":       {chart.Axis{Scale: linear}, 0, 100, "0 20 40 60 80 100"},
	} {
		want := strings.Split(c.want, "|")
		if len(want) == 1 {
			want = strings.Fields(c.want)
		}
		got := draw(t, chart.Chart{Y: c.axis, Lines: []chart.Line{{Points: points(0, c.lo, 1, c.hi)}}})
		if !slices.Equal(got.y, want) {
			t.Errorf("%s: numbers %q, want %q", name, got.y, want)
		}
	}
}

// TestTime: numbers of time axes are what clocks show.
func TestTime(t *testing.T) {
	for most, want := range map[float64]string{
		.5:          "0|0.1 s|0.2 s|0.3 s|0.4 s|0.5 s",
		30:          "0|5 s|10 s|15 s|20 s|25 s|30 s",
		300:         "0|1 min|2 min|3 min|4 min|5 min",
		450:         "0|2 min|4 min|6 min",
		3600:        "0|10 min|20 min|30 min|40 min|50 min|60 min",
		5 * 3600:    "0|1 h|2 h|3 h|4 h|5 h",
		24 * 3600:   "0|6 h|12 h|18 h|24 h",
		75 * 86_400: "0|14 d|28 d|42 d|56 d|70 d",
	} {
		got := draw(t, chart.Chart{X: chart.Axis{Unit: chart.Seconds, Max: most}, Lines: []chart.Line{{Points: points(0, 0, most, 1)}}})
		if !slices.Equal(got.x, strings.Split(want, "|")) {
			t.Errorf("%g s: %q, want %q", most, got.x, want)
		}
	}
}

func TestTail(t *testing.T) {
	c := chart.Chart{
		X:     chart.Axis{Scale: chart.Tail, Unit: chart.Share, Max: .9999},
		Lines: []chart.Line{{Colour: 1, Points: points(0, 0, .9, 5, .99, 10, .9999, 20)}},
	}
	got := draw(t, c)
	if want := []string{"0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"}; !slices.Equal(got.x, want) {
		t.Errorf("numbers %q, want %q", got.x, want)
	}
	// Each nine is a quarter of the width.
	if want := "M0.0 400.0L250.0 300.0L500.0 200.0L1000.0 0.0"; got.lines["c1"] != want {
		t.Errorf("line %q, want %q", got.lines["c1"], want)
	}
}

// TestLines: gaps where there is no number, dots where one is alone, bars from the axis.
func TestLines(t *testing.T) {
	nan := math.NaN()
	c := chart.Chart{
		ID: "x", Title: "title", X: chart.Axis{Label: "x axis", Max: 10}, Y: chart.Axis{Label: "y axis", Max: 10},
		Lines: []chart.Line{
			{Name: "gap", Colour: 1, Points: points(0, 0, 1, 5, 2, nan, 3, 7, 4, nan, 5, 10)},
			{Name: "more than fits", Colour: 2, Dashed: true, Points: points(0, -5, 10, 50)},
			{Name: "bars", Bars: true, Points: points(0, 5, 1, 0, 2, .001)},
		},
	}
	got := draw(t, c)
	for class, want := range map[string]string{
		"c1":        "M0.0 400.0L100.0 200.0M300.0 120.0L300.1 120.0M500.0 0.0L500.1 0.0",
		"c2 dashed": "M0.0 400.0L1000.0 0.0",
		"c0 bars":   "M0.0 400V200.0H100.0V400ZM200.0 400V399.0H1000.0V400Z",
	} {
		if got.lines[class] != want {
			t.Errorf("%s: %q, want %q", class, got.lines[class], want)
		}
	}
	rows := [][]string{
		{"x axis", "gap", "more than fits", "bars"}, {"0", "0", "-5", "5"}, {"1", "5", "", "0"}, {"2", "", "", "0.0"}, {"3", "7", "", ""},
		{"4", "", "", ""}, {"5", "10", "", ""}, {"10", "", "50", ""},
	}
	if fmt.Sprint(got.rows) != fmt.Sprint(rows) {
		t.Errorf("table %q, want %q", got.rows, rows)
	}
	if got.title != "title" || !strings.Contains(got.desc, "y axis over x axis") || !strings.Contains(got.desc, "gap: from 0 to 10, 10 at the end") {
		t.Errorf("title %q, description %q", got.title, got.desc)
	}
}

func TestNothing(t *testing.T) {
	for name, lines := range map[string][]chart.Line{
		"no lines": nil, "no points": {{Name: "a"}}, "no numbers": {{Points: points(0, math.NaN(), 1, math.NaN())}},
	} {
		if got := (chart.Chart{Lines: lines}).HTML(); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestEscaped puts HTML into all texts.
func TestEscaped(t *testing.T) {
	const bad = `<script>"'&`
	c := chart.Chart{
		ID: bad, Title: bad, About: bad, X: chart.Axis{Label: bad}, Y: chart.Axis{Label: bad},
		Lines: []chart.Line{{Name: bad, Points: points(0, 1, 1, 2)}},
	}
	if s := string(c.HTML()); strings.Contains(s, "<script>") || strings.Contains(s, `"'`) {
		t.Errorf("not escaped: %s", s)
	}
	if got := draw(t, c); got.title != bad {
		t.Errorf("title %q", got.title)
	}
}

// places are those of numbers and of the script, in percent and parts of one.
var places = regexp.MustCompile(`(?:style="(?:left|top):|data-[xy]=")([^%"]*)`)

// TestAnyNumbers draws numbers of all magnitudes: all places are within the chart.
func TestAnyNumbers(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	odd := []float64{0, -1, math.NaN(), math.MaxInt64, 1e-9, 1, .5, .999999, 3600e6}
	for i := range 3000 {
		c := chart.Chart{
			X: chart.Axis{Unit: chart.Unit(r.IntN(5)), Scale: chart.Scale(r.IntN(2))},
			Y: chart.Axis{Unit: chart.Unit(r.IntN(5)), Scale: chart.Scale(r.IntN(2))},
		}
		for _, a := range []*chart.Axis{&c.X, &c.Y} {
			if a.Unit == chart.Seconds {
				a.Scale = chart.Linear
			}
		}
		if i%3 == 0 {
			c.X = chart.Axis{Scale: chart.Tail, Max: 1 - math.Pow(10, -1-5*r.Float64())}
		}
		l := chart.Line{Bars: i%5 == 0}
		x := 0.0
		for range 1 + r.IntN(6) {
			y := odd[r.IntN(len(odd))]
			if r.IntN(2) == 0 {
				y = math.Exp(40*r.Float64() - 10)
			}
			x += math.Exp(20*r.Float64() - 10)
			l.Points = append(l.Points, chart.Point{X: x, Y: y})
		}
		c.Lines = []chart.Line{l}
		s := string(c.HTML())
		inside := func(text string, most float64) {
			if v, err := strconv.ParseFloat(text, 64); err != nil || !(v >= -.001 && v <= most) {
				t.Fatalf("%q is out of the chart of %+v", text, c)
			}
		}
		for _, m := range places.FindAllStringSubmatch(s, -1) {
			inside(m[1], 100.001)
		}
		d := draw(t, c)
		for _, path := range d.lines {
			for _, v := range strings.FieldsFunc(path, func(r rune) bool { return strings.ContainsRune("MLHVZ ", r) }) {
				inside(v, 1001) // dots and bars have some width
			}
		}
		if s != "" && (len(d.x) == 0 || len(d.y) == 0 || len(d.x) > 12 || len(d.y) > 12) {
			t.Fatalf("numbers %q and %q of %+v", d.x, d.y, c)
		}
		for k, ticks := range [][]string{d.x, d.y} {
			if len(slices.Compact(slices.Clone(ticks))) != len(ticks) {
				t.Fatalf("axis %d: numbers twice: %q of %+v", k, ticks, c)
			}
		}
	}
}

func TestUnits(t *testing.T) {
	for _, c := range []struct {
		unit chart.Unit
		v    float64
		want string
	}{
		{chart.Share, .5, "50 %"}, {chart.Share, 1, "100 %"}, {chart.Share, 2. / 3, "66.67 %"}, {chart.Share, .9999, "99.99 %"},
		{chart.Share, .999999, "99.9999 %"}, {chart.Share, .99995, "99.995 %"}, {chart.Seconds, 90.5, "1m30.5s"}, {chart.Micros, 1234, "1.23 ms"},
		{chart.Bytes, 2048, "2.00 KiB"}, {chart.Count, 12.34, "12.3"}, {chart.Count, 1234.5, "1235"}, {chart.Count, math.NaN(), ""},
	} {
		if got := c.unit.Text(c.v); got != c.want {
			t.Errorf("%d of unit %d is %q, want %q", int(c.v), c.unit, got, c.want)
		}
	}
}

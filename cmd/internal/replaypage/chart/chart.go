// Package chart draws lines over two axes as a part of an HTML page. Curves are SVG
// that is stretched to the room there is; texts are HTML beside it, so that they are
// as large on a phone as on a desk, and colours are the page's, so that it may be dark.
// What is drawn is in a table too, for those who want the numbers or see no picture.
package chart

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"
)

// Chart is a diagram.
type Chart struct {
	ID    string // of its element
	Title string
	About string // what is to be seen in it, a sentence or two
	X, Y  Axis
	Lines []Line
}

// Line is one of the things that are drawn. Points are in order of X; where Y is not a
// number, the line is interrupted.
type Line struct {
	Name   string
	Colour int  // from 1 to 6; 0 is that of failures
	Dashed bool //
	Bars   bool // from the X axis up, as wide as it is to the next point
	Points []Point
}

// Point is a point in the units of the axes.
type Point struct{ X, Y float64 }

// The SVG's own units, which are stretched.
const (
	width  = 1000.0
	height = 400.0
)

// Numbers at the axes, about.
const (
	xTicks = 7
	yTicks = 5
)

// HTML returns the chart, "" if there is nothing to be drawn.
func (c Chart) HTML() template.HTML {
	var xs, ys []float64
	for _, l := range c.Lines {
		for _, p := range l.Points {
			if !math.IsNaN(p.Y) {
				xs, ys = append(xs, p.X), append(ys, p.Y)
			}
		}
	}
	if len(xs) == 0 {
		return ""
	}
	c.X, c.Y = c.X.fit(xs), c.Y.fit(ys)
	var b strings.Builder
	e := html.EscapeString
	fmt.Fprintf(&b, `<figure class="chart" id="%s"><figcaption><h3>%s</h3>`, e(c.ID), e(c.Title))
	if c.About != "" {
		fmt.Fprintf(&b, `<p>%s</p>`, e(c.About))
	}
	b.WriteString(`</figcaption>`)
	c.legend(&b)
	fmt.Fprintf(&b, `<div class="plot"><div class="ylabel">%s</div><div class="yticks" aria-hidden="true">`, e(c.Y.Label))
	for _, v := range c.Y.ticks(yTicks) {
		fmt.Fprintf(&b, `<span style="top:%.2f%%">%s</span>`, 100*(1-c.Y.at(v)), e(c.Y.tick(v)))
	}
	fmt.Fprintf(&b, `</div><div class="area" tabindex="0" role="group" aria-label="%s: arrow keys read values">`, e(c.Title))
	c.svg(&b)
	b.WriteString(`<div class="cross" hidden></div></div><div class="xticks" aria-hidden="true">`)
	for i, v := range c.X.ticks(xTicks) {
		at, class := c.X.at(v), ""
		if i%2 == 1 {
			class = "odd" // left out where there is little room
		}
		if at > .97 {
			class += " end"
		}
		fmt.Fprintf(&b, `<span class="%s" style="left:%.2f%%">%s</span>`, class, 100*at, e(c.X.tick(v)))
	}
	fmt.Fprintf(&b, `</div><div class="xlabel">%s</div><output class="read" aria-live="polite"></output></div>`, e(c.X.Label))
	c.table(&b)
	b.WriteString("</figure>\n")
	return template.HTML(b.String()) //nolint:gosec // all texts are escaped above
}

// legend names the lines.
func (c Chart) legend(b *strings.Builder) {
	b.WriteString(`<ul class="legend">`)
	for _, l := range c.Lines {
		fmt.Fprintf(b, `<li class="%s"><svg width="28" height="10" aria-hidden="true">`, l.class())
		if l.Bars {
			b.WriteString(`<rect width="28" height="10"/>`)
		} else {
			b.WriteString(`<path d="M0 5H28"/>`)
		}
		fmt.Fprintf(b, `</svg>%s</li>`, html.EscapeString(l.Name))
	}
	b.WriteString(`</ul>`)
}

func (l Line) layer() int {
	switch {
	case l.Bars:
		return 0
	case l.Dashed:
		return 2
	}
	return 1
}

func (l Line) class() string {
	class := fmt.Sprintf("c%d", l.Colour)
	if l.Dashed {
		class += " dashed"
	}
	if l.Bars {
		class += " bars"
	}
	return class
}

// svg draws the grid and the lines.
func (c Chart) svg(b *strings.Builder) {
	e := html.EscapeString
	fmt.Fprintf(b, `<svg viewBox="0 0 %g %g" preserveAspectRatio="none" role="img" aria-labelledby="%s-t %s-d">`, width, height, e(c.ID), e(c.ID))
	fmt.Fprintf(b, `<title id="%s-t">%s</title><desc id="%s-d">%s</desc>`, e(c.ID), e(c.Title), e(c.ID), e(c.describe()))
	var grid strings.Builder
	for _, v := range c.Y.ticks(yTicks) {
		fmt.Fprintf(&grid, "M0 %.1fH%g", height*(1-c.Y.at(v)), width)
	}
	for _, v := range c.X.ticks(xTicks) {
		fmt.Fprintf(&grid, "M%.1f 0V%g", width*c.X.at(v), height)
	}
	fmt.Fprintf(b, `<path class="grid" d="%s"/>`, grid.String())
	// What hides least comes last: bars, lines, dashed ones; of each the first on top.
	for layer := range 3 {
		for _, l := range slices.Backward(c.Lines) {
			if l.layer() == layer {
				fmt.Fprintf(b, `<path class="line %s" d="%s"/>`, l.class(), c.path(l))
			}
		}
	}
	b.WriteString(`</svg>`)
}

// path returns l in the units of the SVG.
func (c Chart) path(l Line) string {
	var b strings.Builder
	at := func(p Point) (x, y float64) { return width * c.X.at(p.X), height * (1 - c.Y.at(p.Y)) }
	if l.Bars {
		for i, p := range l.Points {
			if !(p.Y > 0) {
				continue
			}
			next := Point{X: c.X.Max}
			if i+1 < len(l.Points) {
				next = l.Points[i+1]
			}
			x0, y := at(p)
			x1, _ := at(next)
			fmt.Fprintf(&b, "M%.1f %gV%.1fH%.1fV%gZ", x0, height, min(y, height-1), max(x1, x0+1), height)
		}
		return b.String()
	}
	pen := 'M'
	for i, p := range l.Points {
		if math.IsNaN(p.Y) {
			pen = 'M'
			continue
		}
		x, y := at(p)
		fmt.Fprintf(&b, "%c%.1f %.1f", pen, x, y)
		if alone := i+1 == len(l.Points) || math.IsNaN(l.Points[i+1].Y); pen == 'M' && alone {
			fmt.Fprintf(&b, "L%.1f %.1f", x+.1, y) // a dot, by its round ends
		}
		pen = 'L'
	}
	return b.String()
}

// describe says in words what the lines do.
func (c Chart) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s over %s. ", c.Y.Label, c.X.Label)
	for _, l := range c.Lines {
		lo, hi, last := math.Inf(1), math.Inf(-1), math.NaN()
		for _, p := range l.Points {
			if !math.IsNaN(p.Y) {
				lo, hi, last = min(lo, p.Y), max(hi, p.Y), p.Y
			}
		}
		if !math.IsNaN(last) {
			fmt.Fprintf(&b, "%s: from %s to %s, %s at the end. ", l.Name, c.Y.Unit.Text(lo), c.Y.Unit.Text(hi), c.Y.Unit.Text(last))
		}
	}
	return strings.TrimSpace(b.String())
}

// table writes all points, with their places for the script.
func (c Chart) table(b *strings.Builder) {
	var xs []float64
	values := make([]map[float64]float64, len(c.Lines))
	for i, l := range c.Lines {
		values[i] = make(map[float64]float64, len(l.Points))
		for _, p := range l.Points {
			xs = append(xs, p.X)
			values[i][p.X] = p.Y
		}
	}
	slices.Sort(xs)
	xs = slices.Compact(xs)
	b.WriteString(`<details><summary>Data</summary><div class="scroll"><table><thead><tr>`)
	fmt.Fprintf(b, `<th scope="col">%s</th>`, html.EscapeString(c.X.Label))
	for _, l := range c.Lines {
		fmt.Fprintf(b, `<th scope="col" data-class="%s">%s</th>`, l.class(), html.EscapeString(l.Name))
	}
	b.WriteString("</tr></thead><tbody>\n")
	for _, x := range xs {
		fmt.Fprintf(b, `<tr data-x="%.4f"><th scope="row">%s</th>`, c.X.at(x), html.EscapeString(c.X.Unit.Text(x)))
		for i := range c.Lines {
			y, ok := values[i][x]
			if !ok || math.IsNaN(y) {
				b.WriteString(`<td></td>`)
				continue
			}
			fmt.Fprintf(b, `<td data-y="%.4f">%s</td>`, c.Y.at(y), html.EscapeString(c.Y.Unit.Text(y)))
		}
		b.WriteString("</tr>\n")
	}
	b.WriteString(`</tbody></table></div></details>`)
}

// Package plot draws panels of marks and lines over a common axis, as SVG or
// PNG. It does what plots of traces need and no more: why no library does is in
// docs/dependencies.md.
package plot

import (
	"fmt"
	"image/color"
	"io"
	"math"
)

// Figure is panels one below the other, over the same X axis.
type Figure struct {
	Title  string
	X      Axis
	Panels []Panel
}

// Axis goes from 0 to Max.
type Axis struct {
	Label string
	Max   float64
	Bytes bool // numbers are bytes
}

// Panel is one diagram: marks, a line, or both.
type Panel struct {
	Title string
	Y     Axis
	Marks []Mark
	Line  []Point
}

// Point is a point in the units of the axes.
type Point struct{ X, Y float64 }

// Mark is a rectangle from one corner to the other. It is drawn large enough to
// be seen.
type Mark struct {
	From, To Point
	Dim      bool
}

// Measures in pixels.
const (
	width       = 900
	left        = 80 // of it for numbers
	right       = 20
	top         = 30 // title of the figure
	bottom      = 40 // numbers and label of the X axis
	panelTitle  = 28
	panelHeight = 130
	minMark     = 1.5
	minTick     = 28 // between numbers of a Y axis
)

var (
	black = color.RGBA{A: 255}
	grey  = color.RGBA{R: 221, G: 221, B: 221, A: 255}
	blue  = color.RGBA{R: 31, G: 100, B: 180, A: 255}
	pale  = color.RGBA{R: 160, G: 190, B: 225, A: 255}
	red   = color.RGBA{R: 200, G: 50, B: 40, A: 255}
)

// align says which end of a text lies at its place.
type align int

const (
	start align = iota
	middle
	end
)

// box is a rectangle of pixels.
type box struct{ x0, y0, x1, y1 float64 }

// canvas is what a figure is drawn on; y goes down.
type canvas interface {
	rectangles(all []box, c color.RGBA)
	line(points []Point, c color.RGBA)
	text(x, y float64, a align, s string)
}

// SVG writes f as SVG.
func (f Figure) SVG(w io.Writer) error {
	c := newVector(width, f.height())
	f.draw(c)
	return c.write(w)
}

// PNG writes f as PNG.
func (f Figure) PNG(w io.Writer) error {
	c := newRaster(width, f.height())
	f.draw(c)
	return c.write(w)
}

func (f Figure) height() int { return top + len(f.Panels)*(panelTitle+panelHeight) + bottom }

func (f Figure) draw(c canvas) {
	c.text(left, 20, start, f.Title)
	for i, p := range f.Panels {
		y := float64(top + i*(panelTitle+panelHeight) + panelTitle)
		p.draw(c, f.X, box{left, y, width - right, y + panelHeight})
	}
	// The numbers of the X axis stand below the last panel.
	y := float64(f.height() - bottom)
	for _, v := range ticks(f.X, (width-left-right)/90) {
		c.text(left+v/f.X.Max*(width-left-right), y+15, middle, f.X.number(v))
	}
	c.text((left+width-right)/2, y+32, middle, f.X.Label)
}

// draw draws the panel into b.
func (p Panel) draw(c canvas, x Axis, b box) {
	at := func(q Point) Point {
		return Point{
			X: b.x0 + q.X/x.Max*(b.x1-b.x0),
			Y: b.y1 - q.Y/p.Y.Max*(b.y1-b.y0),
		}
	}
	c.text(b.x0, b.y0-6, start, p.Title)
	c.text(b.x0-8, b.y0-6, end, p.Y.Label)
	for _, v := range ticks(p.Y, panelHeight/minTick) {
		q := at(Point{Y: v})
		c.line([]Point{q, {b.x1, q.Y}}, grey)
		c.text(b.x0-8, q.Y+4, end, p.Y.number(v))
	}
	for _, v := range ticks(x, (width-left-right)/90) {
		q := at(Point{X: v})
		c.line([]Point{{q.X, b.y0}, {q.X, b.y1}}, grey)
	}
	var bright, dim []box
	for _, m := range p.Marks {
		from, to := at(m.From), at(m.To)
		r := box{from.X, to.Y, max(to.X, from.X+minMark), max(from.Y, to.Y+minMark)}
		if m.Dim {
			dim = append(dim, r)
		} else {
			bright = append(bright, r)
		}
	}
	c.rectangles(dim, pale)
	c.rectangles(bright, blue)
	if len(p.Line) > 0 {
		points := make([]Point, len(p.Line))
		for i, q := range p.Line {
			points[i] = at(q)
		}
		c.line(points, red)
	}
	c.line([]Point{{b.x0, b.y0}, {b.x0, b.y1}, {b.x1, b.y1}}, black)
}

// ticks returns the numbers to be written at an axis: round ones, n at most and
// 0.
func ticks(a Axis, n int) []float64 {
	unit, _ := a.unit()
	step := math.Pow(10, math.Floor(math.Log10(a.Max/unit/float64(n))))
	for _, m := range []float64{1, 2, 5, 10} {
		if a.Max/unit/(step*m) <= float64(n) {
			step *= m
			break
		}
	}
	if !a.Bytes || unit == 1 { // whole things
		step = max(1, math.Round(step))
	}
	var out []float64
	for i := range n + 1 {
		if v := float64(i) * step * unit; v <= a.Max {
			out = append(out, v)
		}
	}
	return out
}

// unit returns what numbers at an axis are multiples of, and its name.
func (a Axis) unit() (float64, string) {
	if !a.Bytes {
		return 1, ""
	}
	unit, names := 1.0, []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for len(names) > 1 && a.Max >= 2*1024*unit {
		unit, names = 1024*unit, names[1:]
	}
	return unit, " " + names[0]
}

func (a Axis) number(v float64) string {
	unit, name := a.unit()
	return fmt.Sprintf("%.4g%s", v/unit, name)
}

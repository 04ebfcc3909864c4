package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"math"
)

// Measures of the plot, in pixels.
const (
	plotWidth  = 900
	plotLeft   = 230 // of it for names
	plotRight  = 70  // for numbers behind bars
	plotBar    = 16
	plotHeader = 26 // above a group's bars
	plotFooter = 30
)

// SVG writes bars of the times until the services were available, on a
// logarithmic axis, with the floors as lines through the bars.
func (r Report) SVG(w io.Writer) error {
	groups := r.groups()
	height := plotFooter
	low, high := math.Inf(1), 0.0
	for _, g := range groups {
		height += plotHeader + plotBar*len(g.summaries)
		for _, s := range g.summaries {
			low, high = min(low, s.Ready), max(high, s.Ready)
		}
	}
	if len(groups) == 0 {
		low, high = 1, 1
	}
	p := plot{low: math.Floor(math.Log10(max(low, 1e-3))), high: math.Ceil(math.Log10(max(high, 1e-3)) + 0.01)}
	p.add(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`, plotWidth, height)
	p.add(`<rect width="100%%" height="100%%" fill="white"/>`)
	p.axis(height)
	y := 0
	for _, g := range groups {
		y = p.group(r, g, y)
	}
	p.add(`</svg>`)
	_, err := w.Write(p.Bytes())
	return err
}

type plot struct {
	bytes.Buffer
	low, high float64 // powers of ten at the ends of the axis
}

func (p *plot) add(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// text writes text that may hold anything.
func (p *plot) text(x, y int, attributes, text string) {
	fmt.Fprintf(p, `<text x="%d" y="%d" %s>`, x, y, attributes)
	xml.EscapeText(p, []byte(text)) //nolint:errcheck // a buffer takes everything
	p.add(`</text>`)
}

// x is where so many seconds are.
func (p *plot) x(seconds float64) int {
	at := (math.Log10(max(seconds, 1e-3)) - p.low) / (p.high - p.low)
	return plotLeft + int(math.Round(at*(plotWidth-plotLeft-plotRight)))
}

func (p *plot) axis(height int) {
	for power := p.low; power <= p.high; power++ {
		x := p.x(math.Pow(10, power))
		p.add(`<line x1="%d" y1="0" x2="%d" y2="%d" stroke="#ddd"/>`, x, x, height-plotFooter+8)
		p.text(x, height-8, `text-anchor="middle"`, fmt.Sprintf("%g s", math.Pow(10, power)))
	}
}

func (p *plot) group(r Report, g group, y int) int {
	p.text(8, y+plotHeader-8, `font-weight="bold"`, g.image+", "+g.line)
	y += plotHeader
	top := y
	for _, s := range g.summaries {
		p.text(plotLeft-8, y+plotBar-4, `text-anchor="end"`, s.Variant)
		p.add(`<rect x="%d" y="%d" width="%d" height="%d" fill="#4a7ab5"/>`, plotLeft, y+2, max(p.x(s.Ready)-plotLeft, 1), plotBar-4)
		p.text(p.x(s.Ready)+4, y+plotBar-4, `fill="#333"`, fmt.Sprintf("%.2f", s.Ready))
		y += plotBar
	}
	if f, ok := r.floor(g.image, g.line); ok {
		x := p.x(f.Seconds())
		p.add(`<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#c33" stroke-width="2"/>`, x, top, x, y)
	}
	return y
}

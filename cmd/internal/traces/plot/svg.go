package plot

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"image/color"
	"io"
)

// vector is a canvas that becomes an SVG document.
type vector struct{ bytes.Buffer }

func newVector(width, height int) *vector {
	v := &vector{}
	fmt.Fprintf(v, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="monospace" font-size="12">`+"\n", width, height)
	fmt.Fprintln(v, `<rect width="100%" height="100%" fill="white"/>`)
	return v
}

// rectangles writes all of them as one path: there may be thousands.
func (v *vector) rectangles(all []box, c color.RGBA) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(v, `<path fill="%s" d="`, hex(c))
	for _, b := range all {
		fmt.Fprintf(v, "M%.1f %.1fH%.1fV%.1fH%.1fZ", b.x0, b.y0, b.x1, b.y1, b.x0)
	}
	fmt.Fprintln(v, `"/>`)
}

func (v *vector) line(points []Point, c color.RGBA) {
	fmt.Fprintf(v, `<polyline fill="none" stroke="%s" points="`, hex(c))
	for _, p := range points {
		fmt.Fprintf(v, "%.1f,%.1f ", p.X, p.Y)
	}
	fmt.Fprintln(v, `"/>`)
}

func (v *vector) text(x, y float64, a align, s string) {
	fmt.Fprintf(v, `<text x="%.1f" y="%.1f" text-anchor="%s">`, x, y, [...]string{"start", "middle", "end"}[a])
	_ = xml.EscapeText(v, []byte(s)) // a buffer takes everything
	fmt.Fprintln(v, `</text>`)
}

func (v *vector) write(w io.Writer) error {
	fmt.Fprintln(v, `</svg>`)
	_, err := v.WriteTo(w)
	return err
}

func hex(c color.RGBA) string { return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B) }

package plot

import (
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
)

// raster is a canvas that becomes a PNG image. Packages draw and png know the
// image within, and are quick with that.
type raster struct{ *image.RGBA }

func newRaster(width, height int) raster {
	r := raster{image.NewRGBA(image.Rect(0, 0, width, height))}
	draw.Draw(r.RGBA, r.Bounds(), image.White, image.Point{}, draw.Src)
	return r
}

func (r raster) rectangles(all []box, c color.RGBA) {
	fill := image.NewUniform(c)
	for _, b := range all {
		x0, y0 := int(math.Floor(b.x0)), int(math.Floor(b.y0))
		x1, y1 := int(math.Round(b.x1)), int(math.Round(b.y1))
		draw.Draw(r.RGBA, image.Rect(x0, y0, max(x1, x0+1), max(y1, y0+1)), fill, image.Point{}, draw.Src)
	}
}

// line draws the pixels nearest to the line, one a column or row, whichever are
// more.
func (r raster) line(points []Point, c color.RGBA) {
	for i := 1; i < len(points); i++ {
		a, b := points[i-1], points[i]
		n := max(1, math.Ceil(max(math.Abs(b.X-a.X), math.Abs(b.Y-a.Y))))
		for k := range int(n) + 1 {
			t := float64(k) / n
			r.SetRGBA(int(math.Round(a.X+t*(b.X-a.X))), int(math.Round(a.Y+t*(b.Y-a.Y))), c)
		}
	}
}

// text writes s in a font of the size that SVG has; what is not ASCII becomes
// a box.
func (r raster) text(x, y float64, a align, s string) {
	d := font.Drawer{Dst: r.RGBA, Src: image.Black, Face: basicfont.Face7x13}
	d.Dot = fixed.P(int(x), int(y))
	switch w := d.MeasureString(s); a {
	case middle:
		d.Dot.X -= w / 2
	case end:
		d.Dot.X -= w
	case start:
	}
	d.DrawString(s)
}

func (r raster) write(w io.Writer) error { return png.Encode(w, r.RGBA) }

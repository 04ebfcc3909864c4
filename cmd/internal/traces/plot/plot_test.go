package plot_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cmd/internal/traces/plot"
)

func figure() plot.Figure {
	return plot.Figure{
		Title: `"a<b>&c"`,
		X:     plot.Axis{Label: "reads", Max: 100},
		Panels: []plot.Panel{{
			Title: "layer 0",
			Y:     plot.Axis{Label: "offset", Max: 40 << 20, Bytes: true},
			Marks: []plot.Mark{
				{From: plot.Point{X: 0, Y: 20 << 20}, To: plot.Point{X: 50, Y: 40 << 20}},
				{From: plot.Point{X: 50, Y: 0}, To: plot.Point{X: 100, Y: 20 << 20}, Dim: true},
			},
		}, {
			Title: "sum",
			Y:     plot.Axis{Label: "sum", Max: 10},
			Line:  []plot.Point{{X: 0, Y: 5}, {X: 100, Y: 5}},
		}},
	}
}

// texts returns the texts of an SVG document, which has to be one.
func texts(t *testing.T, svg []byte) (all []string) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	inside := false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			inside = token.Name.Local == "text"
		case xml.CharData:
			if inside {
				all = append(all, string(token))
			}
		case xml.EndElement:
			inside = false
		}
	}
}

func TestSVG(t *testing.T) {
	var b bytes.Buffer
	if err := figure().SVG(&b); err != nil {
		t.Fatal(err)
	}
	want := []string{`"a<b>&c"`,
		"layer 0", "offset", "0 MiB", "10 MiB", "20 MiB", "30 MiB", "40 MiB",
		"sum", "sum", "0", "5", "10",
		"0", "20", "40", "60", "80", "100", "reads"}
	if got := texts(t, b.Bytes()); !slices.Equal(got, want) {
		t.Errorf("texts %q, want %q", got, want)
	}
	// The bright mark: from the left to the middle, in the upper half.
	if want := "M80.0 58.0H480.0V123.0H80.0Z"; !strings.Contains(b.String(), want) {
		t.Errorf("no %s in %s", want, &b)
	}
}

func TestPNG(t *testing.T) {
	var b bytes.Buffer
	if err := figure().PNG(&b); err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	bright, dim := color.RGBA{R: 31, G: 100, B: 180, A: 255}, color.RGBA{R: 160, G: 190, B: 225, A: 255}
	for at, want := range map[image.Point]color.RGBA{
		{300, 80}:  bright,
		{600, 80}:  {255, 255, 255, 255},
		{300, 150}: {255, 255, 255, 255},
		{600, 150}: dim,
		{300, 281}: {200, 50, 40, 255}, // the line, in the middle of its panel
		{300, 285}: {255, 255, 255, 255},
	} {
		if got := color.RGBAModel.Convert(img.At(at.X, at.Y)); got != want {
			t.Errorf("at %v %v, want %v", at, got, want)
		}
	}
	var ink int // of the title
	for x := range 200 {
		for y := range 25 {
			if color.GrayModel.Convert(img.At(80+x, y)).(color.Gray).Y < 128 {
				ink++
			}
		}
	}
	if ink < 50 {
		t.Errorf("the title has %d black pixels", ink)
	}
}

// TestScales draws axes of all magnitudes: a few numbers each, with a unit.
func TestScales(t *testing.T) {
	for unit, most := range map[string]float64{" B": 1, "B": 512, " KiB": 100_000, " MiB": 5 << 20, " GiB": 7 << 30, " TiB": 1 << 62} {
		f := plot.Figure{X: plot.Axis{Max: 1}, Panels: []plot.Panel{{Y: plot.Axis{Max: most, Bytes: true}}}}
		var b bytes.Buffer
		if err := f.SVG(&b); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, s := range texts(t, b.Bytes()) {
			if strings.HasSuffix(s, unit) {
				n++
			}
		}
		if n < 2 || n > 6 {
			t.Errorf("%g bytes: %d numbers with %q in %q", most, n, unit, texts(t, b.Bytes()))
		}
	}
}

func TestWriteFails(t *testing.T) {
	for name, write := range map[string]func(plot.Figure, io.Writer) error{"svg": plot.Figure.SVG, "png": plot.Figure.PNG} {
		if err := write(figure(), full{}); !errors.Is(err, errFull) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

var errFull = fmt.Errorf("disk is full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

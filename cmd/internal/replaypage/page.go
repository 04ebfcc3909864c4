// Package replaypage writes what a replay and a simulation found as one HTML file
// that needs nothing else: plots are drawn here, and the script only says what is
// under the pointer.
package replaypage

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page's parts
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
)

// Input is what a page shows. Parts that are nil are left out.
type Input struct {
	Title string
	Run   *report.Summary
	Sim   *simulate.Report
	// Advice is what is recommended because of it, a paragraph each.
	Advice []string
}

//go:embed page.html
var layout string

//go:embed page.css
var style string

//go:embed page.js
var script string

// page is what the layout is filled with.
type page struct {
	Title, About string
	Policy       string // what a browser may do: run the script below and nothing else
	Style        template.CSS
	Script       template.JS
	Tiles        []tile
	Verdicts     []verdict
	Advice       []string
	Sections     []section
}

// tile is a figure that comes first.
type tile struct{ Name, Value, More string }

// verdict is a sentence that one has to know. Class is good, bad or note.
type verdict struct{ Class, Text string }

// section is a part of the page.
type section struct {
	ID, Title, About string
	Charts           []template.HTML
	Tables           []table
}

// table has its names in the first column. Where Numbers is set the others are numbers,
// which stand to the right.
type table struct {
	Title   string
	Head    []string
	Rows    [][]cell
	Numbers bool
}

// cell is one place in a table.
type cell struct {
	Text string
	Best bool
}

var pages = template.Must(template.New("page").Parse(layout))

// Write writes the page of in to w.
func Write(w io.Writer, in Input) error {
	sum := sha256.Sum256([]byte(script))
	p := page{
		Title: in.Title, Advice: in.Advice,
		Style:  template.CSS(style), //nolint:gosec // embedded
		Script: template.JS(script), //nolint:gosec // embedded
		Policy: "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-" +
			base64.StdEncoding.EncodeToString(sum[:]) + "'",
	}
	if in.Run != nil {
		p.run(in.Run)
	}
	if in.Sim != nil {
		p.simulation(in.Sim)
	}
	if p.Title == "" {
		p.Title = "Replay of registry traffic"
	}
	var b bytes.Buffer
	if err := pages.Execute(&b, p); err != nil {
		return fmt.Errorf("making page: %w", err)
	}
	if _, err := b.WriteTo(w); err != nil {
		return fmt.Errorf("writing page: %w", err)
	}
	return nil
}

// add adds a section unless it is empty.
func (p *page) add(s section) {
	var charts []template.HTML
	for _, c := range s.Charts {
		if c != "" {
			charts = append(charts, c)
		}
	}
	s.Charts = charts
	if len(s.Charts)+len(s.Tables) > 0 {
		p.Sections = append(p.Sections, s)
	}
}

// row makes cells of texts. Short ones, such as numbers with a unit, are not broken.
func row(texts ...string) []cell {
	cells := make([]cell, len(texts))
	for i, t := range texts {
		if len(t) < 12 {
			t = strings.ReplaceAll(t, " ", "\u00a0")
		}
		cells[i].Text = t
	}
	return cells
}

package view

import (
	"fmt"

	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/cmd/internal/traces/plot"
)

// maxPanels bounds the height of a figure: overlaybd stacks up to 255 layers,
// but foreign traces may name any.
const maxPanels = 64

// Figure plots the reads in their order: the offsets in a panel for each layer
// that is read, and how the bytes that had not been read before add up.
func (r *Report) Figure() plot.Figure {
	f := plot.Figure{
		Title: fmt.Sprintf("%s: %d reads, %s", r.Name, r.Reads, terminal.Bytes(r.Distinct)),
		X:     plot.Axis{Label: "reads, in the order in which they ended", Max: float64(max(len(r.Records), 1))},
	}
	panels := map[uint32]int{}
	for _, l := range r.Layers {
		if l.Reads == 0 {
			continue
		}
		if len(f.Panels) == maxPanels {
			f.Title += fmt.Sprintf(" (the lowest %d layers)", maxPanels)
			break
		}
		title := fmt.Sprintf("layer %d", l.Index)
		if l.Digest != "" {
			title += ", " + l.Digest.String()
		}
		panels[l.Index] = len(f.Panels)
		f.Panels = append(f.Panels, plot.Panel{
			Title: fmt.Sprintf("%s: %d reads, %s", title, l.Reads, terminal.Bytes(l.Distinct)),
			Y:     plot.Axis{Label: "offset", Max: float64(l.End), Bytes: true},
		})
	}
	total := plot.Panel{Title: "read so far, each byte once", Y: plot.Axis{Label: "sum", Max: float64(max(r.Distinct, 1)), Bytes: true}}
	total.Line = append(total.Line, plot.Point{})
	for i, rec := range r.Records {
		x := float64(i)
		total.Line = append(total.Line, plot.Point{X: x + 1, Y: float64(rec.Total)})
		if n, ok := panels[rec.Layer]; ok {
			f.Panels[n].Marks = append(f.Panels[n].Marks, plot.Mark{
				From: plot.Point{X: x, Y: float64(rec.Off)},
				To:   plot.Point{X: x + 1, Y: float64(rec.Off + rec.Count)},
				Dim:  rec.New == 0,
			})
		}
	}
	f.Panels = append(f.Panels, total)
	return f
}

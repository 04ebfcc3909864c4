// Package replaypage writes what a replay and a simulation found as one HTML file
// that needs nothing else: plots are SVG, drawn here, and the script only says what is
// under the pointer.
package replaypage

import (
	"io"

	"github.com/reprise-containers/reprise/cache/workload/report"
)

// Input is what a page shows. Parts that are nil are left out.
type Input struct {
	Title string
	Run   *report.Summary
}

// Write writes the page of in to w.
func Write(w io.Writer, in Input) error { return nil }

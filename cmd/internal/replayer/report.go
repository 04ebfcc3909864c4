package replayer

import (
	"errors"
	"fmt"
	"os"

	"github.com/reprise-containers/reprise/cache/workload/report"
)

// Report merges the summaries of runs, JSON files, and writes what the configuration
// asks for of the whole.
func (p *Replayer) Report(paths []string) error {
	if len(paths) == 0 {
		return errors.New("no summary of a run is named: runs write them with report.json")
	}
	var all []*report.Summary
	for _, path := range paths {
		s, err := readSummary(path)
		if err != nil {
			return err
		}
		all = append(all, s)
	}
	s, err := report.Merge(all...)
	if err != nil {
		return err
	}
	if err := s.WriteText(p.Out); err != nil {
		return err
	}
	return p.writeRun(s)
}

func readSummary(path string) (*report.Summary, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading a summary: %w", err)
	}
	defer f.Close()
	s, err := report.Read(f)
	if err != nil {
		return nil, fmt.Errorf("reading %s, which must be the report.json of a run: %w", path, err)
	}
	return s, nil
}

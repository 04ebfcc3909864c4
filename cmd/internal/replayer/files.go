package replayer

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cmd/internal/newfile"
	"github.com/reprise-containers/reprise/cmd/internal/replayconfig"
	"github.com/reprise-containers/reprise/cmd/internal/replaypage"
)

// list returns some of the names, for people.
func list(names []string) string {
	const most = 4
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// writeRun writes the reports of a run that the configuration asks for.
func (p *Replayer) writeRun(s *report.Summary) error {
	return write(p.Config.Report.Files, s.WriteJSON, s.WriteCSV, replaypage.Input{Title: s.Title, Run: s})
}

// writeSimulation writes those of a simulation.
func (p *Replayer) writeSimulation(r *simulate.Report, advice []string) error {
	if err := writeFile(p.Config.Simulate.Cluster.CSV, r.WriteClusterCSV); err != nil {
		return err
	}
	title := "Simulation of " + list(p.Config.Trace.Traces)
	return write(p.Config.Simulate.Report, func(w io.Writer) error { return writeJSON(w, r) }, r.WriteCSV, replaypage.Input{Title: title, Sim: r, Advice: advice})
}

func write(c replayconfig.Files, asJSON, asCSV func(io.Writer) error, page replaypage.Input) error {
	for _, f := range []struct {
		path  string
		write func(io.Writer) error
	}{{c.JSON, asJSON}, {c.CSV, asCSV}, {c.HTML, func(w io.Writer) error { return replaypage.Write(w, page) }}} {
		if err := writeFile(f.path, f.write); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes a report, if a file is named for it. Those of an earlier run are
// replaced, as the results file is.
func writeFile(name string, f func(io.Writer) error) error {
	if name == "" {
		return nil
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return err
	}
	if err := newfile.Write(path, true, func(out *os.File) error { return f(out) }); err != nil {
		return fmt.Errorf("writing a report: %w", err)
	}
	return nil
}

// writable reports why files could not be made, before hours are spent on what is to be
// in them. Paths may be "".
func writable(paths ...string) error {
	for _, path := range paths {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
			return fmt.Errorf("%s is there, and is not a regular file", path)
		}
		f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
		if err != nil {
			return fmt.Errorf("nothing can be written to %s: %w", path, err)
		}
		f.Close()
		os.Remove(f.Name())
	}
	return nil
}

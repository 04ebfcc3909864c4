package report

import "io"

// Read reads the JSON form of a summary.
func Read(r io.Reader) (*Summary, error) { return nil, nil }

// WriteJSON writes s in the form that Read reads.
func (s *Summary) WriteJSON(w io.Writer) error { return nil }

// WriteText writes s for people. It begins with the lines of the original replayer.
func (s *Summary) WriteText(w io.Writer) error { return nil }

// WriteCSV writes a line for each group of requests: its key, counts, bytes and
// quantiles of service time and latency in seconds.
func (s *Summary) WriteCSV(w io.Writer) error { return nil }

// WriteSeriesCSV writes a line for each slice of time.
func (s *Summary) WriteSeriesCSV(w io.Writer) error { return nil }

// Merge adds what o says. Runs that overlap in time are taken for clients of one run;
// those that do not are laid one behind the other, in order of time, so that rates are
// of the time that was measured. The error says that they do not fit.
func (s *Summary) Merge(o *Summary) error { return nil }

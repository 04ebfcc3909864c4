package report_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/report"
)

// FuzzRead: what is read can be written, merged and read again; the rest is an error.
func FuzzRead(f *testing.F) {
	f.Add([]byte(text(f, record(results(1, 40, start)...).Snapshot())))
	f.Add([]byte(text(f, report.New(nil).Snapshot())))
	f.Add([]byte(`{"version":1,"series":{"width":100000000,"slices":[{}]},"groups":[{}]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := report.Read(bytes.NewReader(in))
		if err != nil {
			return
		}
		for _, write := range []func(io.Writer) error{s.WriteText, s.WriteCSV, s.WriteSeriesCSV} {
			if err := write(io.Discard); err != nil {
				t.Fatal(err)
			}
		}
		other := record(results(1, 10, start)...).Snapshot()
		m, err := report.Merge(s, other)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(m.Series.Slices); n > 600 {
			t.Fatalf("%d slices", n)
		}
		if s.Start.Year() < 1 || s.Start.Year() > 9999 || s.Elapsed > 1000*time.Hour {
			return // there is no JSON of such times
		}
		if _, err := report.Read(bytes.NewReader([]byte(text(t, s)))); err != nil {
			t.Fatal(err)
		}
	})
}

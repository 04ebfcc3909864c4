package report_test

import (
	"bytes"
	"encoding/csv"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

var update = flag.Bool("update", false, "write the golden files")

// small is a run that one can count by hand.
func small() *report.Summary {
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	const ms = time.Millisecond
	r := record(
		load.Result{Op: load.Get, Kind: trace.Blob, Status: 200, Outcome: "hit", Bytes: 3000, Intended: at(0), Sent: at(0), Service: 10 * ms, Latency: 10 * ms},
		load.Result{Op: load.Get, Kind: trace.Blob, Status: 200, Outcome: "miss", Bytes: 1000, Registry: 1, Intended: at(100), Sent: at(150), Late: 50 * ms, Service: 20 * ms, Latency: 70 * ms},
		load.Result{Op: load.Get, Kind: trace.Blob, Status: 206, Ranged: true, Outcome: "hit", Bytes: 500, Intended: at(200), Sent: at(201), Late: ms, Service: 3 * ms, Latency: 4 * ms},
		load.Result{Op: load.Head, Kind: trace.Manifest, Status: 200, Intended: at(300), Sent: at(300), Service: ms / 2, Latency: ms / 2},
		load.Result{Op: load.Get, Kind: trace.Ping, Status: 200, Bytes: 2, Intended: at(400), Sent: at(400), Service: ms / 4, Latency: ms / 4},
		load.Result{Op: load.Push, Kind: trace.Upload, Status: 500, Bytes: 100, Intended: at(500), Sent: at(500), Service: 1500 * ms, Latency: 1500 * ms, Cause: load.CauseStatus, Err: "500 Internal Server Error"},
		load.Result{Op: load.Get, Kind: trace.Blob, Intended: at(1900), Sent: at(1900), Service: 100 * ms, Latency: 100 * ms, Cause: load.CauseAborted, Err: "run ended"},
		load.Result{Op: load.Get, Kind: trace.Blob, Registry: 1, Intended: at(1950), Cause: load.CauseLost, Err: "client two is gone"},
	)
	r.Generator(load.Stats{Sent: 7, MaxInFlight: 2, LagP99: 50 * ms, LagMax: 50 * ms, Saturated: []string{"1 of 7 requests waited for max_inflight"}})
	s := r.Snapshot()
	s.Notes = []string{"12 requests of the trace are not in the interim map"}
	return s
}

func TestGolden(t *testing.T) {
	full, empty := small(), report.New(nil).Snapshot()
	for name, write := range map[string]func(io.Writer) error{
		"small.txt": full.WriteText, "small.csv": full.WriteCSV, "series.csv": full.WriteSeriesCSV,
		"empty.txt": empty.WriteText, "empty.csv": empty.WriteCSV, "empty-series.csv": empty.WriteSeriesCSV,
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if b.String() != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, &b, want)
		}
	}
}

// TestOriginalLines reads the first lines by the labels that the original prints, as
// scripts do, and does so without any request too.
func TestOriginalLines(t *testing.T) {
	labels := []string{
		"Successful Requests", "Failed Requests", "Duration",
		"Data Transfered", //nolint:misspell // as the original has it
		"Average Latency", "% requests on time", "Throughput",
	}
	for name, c := range map[string]struct {
		s    *report.Summary
		want []float64
	}{
		"small": {small(), []float64{5, 3, 2, 4502, (10 + 20 + 3 + .5 + .25) / 5 / 1e3, 4. / 5, 2.5}},
		"empty": {report.New(nil).Snapshot(), make([]float64, 7)},
		"failed": {record(load.Result{Intended: start, Sent: start, Cause: load.CauseConnect}).Snapshot(),
			[]float64{0, 1, 0, 0, 0, 0, 0}},
	} {
		var b bytes.Buffer
		if err := c.s.WriteText(&b); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(b.String(), "\n")
		if lines[0] != "Statistics" {
			t.Errorf("%s: begins with %q", name, lines[0])
		}
		for i, label := range labels {
			value, ok := strings.CutPrefix(lines[i+1], label+": ")
			number, _, _ := strings.Cut(value, " ")
			got, err := strconv.ParseFloat(number, 64)
			if !ok || err != nil || got < c.want[i]-1e-9 || got > c.want[i]+1e-9 {
				t.Errorf("%s: %q, want %s: %g", name, lines[i+1], label, c.want[i])
			}
		}
	}
}

// TestCSV reads the tables back: all lines have all columns, and nothing is missing.
func TestCSV(t *testing.T) {
	s := record(results(1, 3000, start)...).Snapshot()
	for name, write := range map[string]func(io.Writer) error{"requests": s.WriteCSV, "due": s.WriteSeriesCSV} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		lines, err := csv.NewReader(&b).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		var sum int
		for i, column := range lines[0] {
			if column != name {
				continue
			}
			for _, l := range lines[1:] {
				n, err := strconv.Atoi(l[i])
				if err != nil {
					t.Fatal(err)
				}
				sum += n
			}
		}
		if sum != 3000 {
			t.Errorf("%s: sum is %d, want 3000", name, sum)
		}
	}
}

func TestTime(t *testing.T) {
	for us, want := range map[int64]string{
		0: "0 µs", 999: "999 µs", 1000: "1.00 ms", 9994: "9.99 ms", 9995: "10.0 ms", 99_949: "99.9 ms", 99_950: "100 ms", 999_499: "999 ms",
		999_500: "1.00 s", 9_994_999: "9.99 s", 99_949_999: "99.9 s", 99_950_000: "1m40s", 3600e6: "1h0m0s",
	} {
		if got := report.Time(us); got != want {
			t.Errorf("%d is %q, want %q", us, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "0.98 KiB", 1024: "1.00 KiB", 1 << 20: "1.00 MiB", 999 << 20: "999 MiB", 1000 << 20: "0.98 GiB",
		1 << 62: "4.00 EiB",
	} {
		if got := report.Bytes(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

var errFull = errors.New("disk is full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestWriteFails(t *testing.T) {
	s := record(results(1, 3000, start)...).Snapshot()
	for name, write := range map[string]func(io.Writer) error{
		"text": s.WriteText, "csv": s.WriteCSV, "series": s.WriteSeriesCSV, "json": s.WriteJSON,
	} {
		if err := write(full{}); !errors.Is(err, errFull) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

package outcome

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// Values of Result.OnTime.
const (
	OnTime = "yes"
	Late   = "no"
	Failed = "failed"
)

// Result is an element of a results file. The first four fields are the original's;
// there Time was taken before a request waited for its time, and so Time plus
// Duration was not when it ended. Here it is.
type Result struct {
	Time     float64 `json:"time"`     // when it was sent, seconds since 1970
	Duration float64 `json:"duration"` // from then to the last byte, seconds
	OnTime   string  `json:"onTime"`   // OnTime, Late or Failed
	Size     int64   `json:"size"`     // bytes of the body, received or sent

	URI      string  `json:"uri"`
	Method   string  `json:"method"`
	Status   int     `json:"status"`  // 0: there was no answer
	Latency  float64 `json:"latency"` // from when it was due to the last byte, seconds
	Registry string  `json:"registry"`
	Cache    string  `json:"cache,omitempty"` // "hit", "miss" or what else a cache said
	Error    string  `json:"error,omitempty"`
}

// flushEvery is how often what was added is written, and flushAt after how many bytes.
const (
	flushEvery = time.Second
	flushAt    = 256 << 10
)

// Results writes a results file: one JSON array, as results come. The file is one
// after each write, at least each second in which a result comes, so that a run that
// ends badly leaves what there is.
type Results struct {
	path       string
	registries []string
	onTime     time.Duration
	file       *os.File
	held       bytes.Buffer // not written yet
	n          uint64
	end        int64 // bytes in the file without the end of the array
	flushed    time.Time
	err        error // of a write: nothing is written after it
}

// Create begins a results file, in place of the one that is there. registries are
// the names of what Result.Registry of load counts; a request that was sent at most
// onTime after it was due was on time.
func Create(path string, registries []string, onTime time.Duration) (*Results, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("creating the results file: %w", err)
	}
	r := &Results{path: path, registries: registries, onTime: onTime, file: f}
	r.held.WriteByte('[')
	if err := r.Flush(); err != nil {
		f.Close()
		return nil, err
	}
	return r, nil
}

// Add writes one result. It is not for parallel use. After an error the file has
// what was written before, and every further call returns it.
func (r *Results) Add(x load.Result) error {
	if r.err != nil {
		return r.err
	}
	if r.n++; r.n > 1 {
		r.held.WriteByte(',')
	}
	r.held.WriteByte('\n')
	r.held.Write(r.result(x).appendTo(r.held.AvailableBuffer()))
	if r.held.Len() >= flushAt || time.Since(r.flushed) >= flushEvery {
		return r.Flush()
	}
	return nil
}

func (r *Results) result(x load.Result) Result {
	out := Result{
		Time: seconds(x.Sent), Duration: x.Service.Seconds(), OnTime: OnTime, Size: x.Bytes,
		URI: x.URI, Method: method(x.Op), Status: x.Status, Latency: x.Latency.Seconds(), Cache: x.Outcome, Error: x.Err,
	}
	if x.Sent.IsZero() { // it was not sent: when it should have been
		out.Time = seconds(x.Intended)
	}
	switch {
	case x.Cause != load.CauseNone:
		out.OnTime = Failed
	case x.Late > r.onTime:
		out.OnTime = Late
	}
	if x.Registry >= 0 && x.Registry < len(r.registries) {
		out.Registry = r.registries[x.Registry]
	}
	return out
}

// seconds returns t as seconds since 1970, 0 for no time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}

// method returns the HTTP method that stands for what was done.
func method(op load.Op) string {
	switch op {
	case load.Get:
		return "GET"
	case load.Head:
		return "HEAD"
	case load.Start:
		return "POST"
	case load.Append:
		return "PATCH"
	}
	return "PUT"
}

// closing ends the array. What is written next takes its place.
const closing = "\n]\n"

// Flush writes what was added, for a caller that knows of a time in which no result
// comes.
func (r *Results) Flush() error {
	if r.err != nil {
		return r.err
	}
	r.flushed = time.Now()
	n := r.held.Len()
	r.held.WriteString(closing)
	// One write, so that there is no time at which the array has no end.
	_, err := r.file.WriteAt(r.held.Bytes(), r.end)
	r.held.Truncate(n)
	if err != nil {
		r.held = bytes.Buffer{}
		r.err = fmt.Errorf("writing results to %s: %w", r.path, errors.Join(err, r.mend()))
		return r.err
	}
	r.end += int64(n)
	r.held.Reset()
	return nil
}

// mend puts the file back to what it was before a write that failed. A full disk has
// room for that.
func (r *Results) mend() error {
	if r.end == 0 {
		return nil
	}
	if err := r.file.Truncate(r.end); err != nil {
		return err
	}
	_, err := r.file.WriteAt([]byte(closing), r.end)
	return err
}

// Close writes what is held.
func (r *Results) Close() error {
	err := r.Flush()
	if e := r.file.Close(); e != nil {
		err = errors.Join(err, fmt.Errorf("closing %s: %w", r.path, e))
	}
	return err
}

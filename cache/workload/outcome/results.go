package outcome

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// flushEvery is how often what was written can be read from the file.
const flushEvery = time.Second

// Results writes a results file: one JSON array, as results come. The file can be
// read after each flush, at least each second, so that a run that ends badly leaves
// what there is.
type Results struct {
	path       string
	registries []string
	onTime     time.Duration
	file       *os.File
	w          *bufio.Writer
	n          uint64
	end        int64 // bytes in the file without the end of the array
	flushed    time.Time
}

// newBuffered returns a buffer before f.
func newBuffered(f *os.File) *bufio.Writer { return bufio.NewWriterSize(f, 256<<10) }

// Create begins a results file, in place of the one that is there. registries are
// the names of what Result.Registry of load counts; a request that was sent at most
// onTime after it was due was on time.
func Create(path string, registries []string, onTime time.Duration) (*Results, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("creating the results file: %w", err)
	}
	r := &Results{path: path, registries: registries, onTime: onTime, file: f, w: newBuffered(f)}
	r.w.WriteByte('[')
	if err := r.flush(); err != nil {
		f.Close()
		return nil, err
	}
	return r, nil
}

// Add writes one result. It is not for parallel use.
func (r *Results) Add(x load.Result) error {
	text, err := json.Marshal(r.result(x))
	if err != nil {
		return fmt.Errorf("writing results: %w", err)
	}
	if r.n++; r.n > 1 {
		r.w.WriteByte(',')
	}
	r.w.WriteByte('\n')
	r.w.Write(text)
	if now := time.Now(); now.Sub(r.flushed) >= flushEvery {
		return r.flush()
	}
	return nil
}

func (r *Results) result(x load.Result) Result {
	out := Result{
		Time: float64(x.Sent.UnixNano()) / 1e9, Duration: x.Service.Seconds(), OnTime: OnTime, Size: x.Bytes,
		URI: x.URI, Method: method(x.Op), Status: x.Status, Latency: x.Latency.Seconds(), Cache: x.Outcome, Error: x.Err,
	}
	if x.Sent.IsZero() {
		out.Time = float64(x.Intended.UnixNano()) / 1e9
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

func (r *Results) flush() error {
	r.flushed = time.Now()
	err := r.w.Flush()
	if err == nil {
		r.end, err = r.file.Seek(0, io.SeekCurrent)
	}
	if err == nil {
		_, err = r.file.WriteAt([]byte(closing), r.end)
	}
	if err != nil {
		return fmt.Errorf("writing results to %s: %w", r.path, err)
	}
	return nil
}

// Close writes what is held.
func (r *Results) Close() error {
	err := r.flush()
	if e := r.file.Close(); e != nil {
		err = errors.Join(err, fmt.Errorf("closing %s: %w", r.path, e))
	}
	return err
}

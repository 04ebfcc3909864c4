// Package plugin runs simulators that users wrote: a file with a function
// init(requests) or init(requests, args), where requests is the list of a trace's
// requests in order of time and args what the configuration says. It is the contract
// of the original trace replayer. A file that ends in .star is Starlark, which runs
// in this process and can do nothing but compute and print; any other is Python,
// which the machine's python3 runs.
package plugin

import (
	"context"
	"io"
	"path/filepath"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// Func is a simulator in Go: r is the trace, args what the configuration says, nil if
// it says nothing. What it finds it writes to out.
type Func func(ctx context.Context, r trace.Reader, args map[string]any, out io.Writer) error

// Request is what a plugin is told of a request.
type Request struct {
	Delay    float64 // seconds since the first request
	URI      string
	Size     int64 // bytes; -1 where the trace has none
	Method   string
	Duration float64 // seconds
	Client   string
}

// requestOf returns what a plugin is told of x.
func requestOf(x trace.Request) Request {
	return Request{
		Delay: x.Delay.Seconds(), URI: x.URI, Size: x.Size, Method: x.Method, Duration: x.Duration.Seconds(), Client: x.Client,
	}
}

// Run runs the plugin in a file over the requests of r that the original takes, see
// trace.IsOriginal; delays are since the first of these. Without args, nil, its init is
// called with the requests alone. What it prints goes to out, and what its interpreter
// complains of to errs. The error is the plugin's, with where in it it happened. When
// ctx ends, it is ended with all that it started.
func Run(ctx context.Context, path string, r trace.Reader, args map[string]any, out, errs io.Writer) error {
	r = &since{r: trace.Filter(r, trace.IsOriginal)}
	if filepath.Ext(path) == ".star" {
		return runStarlark(ctx, path, r, args, out)
	}
	return runPython(ctx, path, r, args, out, errs)
}

// since counts delays from the first request.
type since struct {
	r     trace.Reader
	first time.Duration
	begun bool
}

// Next implements trace.Reader.
func (s *since) Next() (trace.Request, error) {
	x, err := s.r.Next()
	if err != nil {
		return x, err
	}
	if !s.begun {
		s.first, s.begun = x.Delay, true
	}
	x.Delay -= s.first
	return x, nil
}

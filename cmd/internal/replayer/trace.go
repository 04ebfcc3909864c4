package replayer

import (
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/cmd/internal/replayconfig"
)

// reading is the trace of a configuration, that is read once. Fraction may be called
// from another goroutine.
type reading struct {
	files *trace.Files
	r     trace.Reader
	limit trace.Limit
	// compat says that the configuration asks for no more than the original took.
	compat bool
	n      int64
	done   atomic.Uint64 // bits of the fraction of the trace that was read
}

func (p *Replayer) limit() trace.Limit {
	l := p.Config.Trace.Limit
	switch {
	case l == nil:
		return trace.Limit{}
	case l.Type == "requests":
		return trace.Limit{Requests: int64(math.Ceil(l.Amount))}
	}
	return trace.Limit{Within: time.Duration(l.Amount * float64(time.Second))}
}

// open opens the trace.
func (p *Replayer) open() (*reading, error) {
	t, err := openTrace(p.Config.Trace, p.limit())
	if err == nil {
		t.compat = p.Config.Trace.Compat
	}
	return t, err
}

// openOriginal opens it as the original did for its plugins: the limit, and the time
// from the first request, are of what it took.
func (p *Replayer) openOriginal() (*reading, error) {
	t := p.Config.Trace
	t.Compat = true
	return openTrace(t, p.limit())
}

func openTrace(t replayconfig.Trace, limit trace.Limit) (*reading, error) {
	files, err := trace.Open(trace.Config{Location: t.Location, Files: t.Traces, Original: t.Compat, SkipBad: t.SkipBad})
	if err != nil {
		return nil, err
	}
	r := limit.Reader(files)
	if t.Compat {
		r = unanswered{r}
	}
	if t.MaxSize > 0 {
		r = capped{r, int64(t.MaxSize)}
	}
	return &reading{files: files, r: r, limit: limit}, nil
}

// unanswered hides the status of requests, which the original did not look at: it
// warms up and sends what was not there too.
type unanswered struct{ trace.Reader }

func (u unanswered) Next() (trace.Request, error) {
	x, err := u.Reader.Next()
	x.Status = 0
	return x, err
}

// capped makes objects no larger than most. A range that is beyond moves to the end.
type capped struct {
	trace.Reader
	most int64
}

func (c capped) Next() (trace.Request, error) {
	x, err := c.Reader.Next()
	x.Size, x.Len = min(x.Size, c.most), min(x.Len, c.most)
	x.Off = min(x.Off, c.most-x.Len)
	return x, err
}

var errNoTimes = errors.New("trace.limit: seconds need times, and the trace has none; limit the requests")

// Next implements trace.Reader.
func (t *reading) Next() (trace.Request, error) {
	x, err := t.r.Next()
	if err != nil {
		return x, err
	}
	if t.limit.Within > 0 && x.Time.IsZero() {
		return x, errNoTimes
	}
	if t.n++; t.n%256 == 0 {
		t.note(x.Delay)
	}
	return x, nil
}

// note computes how much of the trace was read: of its bytes, or of the limit, which
// ever is further.
func (t *reading) note(at time.Duration) {
	part := func(a, b float64) float64 {
		if b <= 0 {
			return 0
		}
		return min(1, a/b)
	}
	s := t.files.Stats()
	f := max(part(float64(s.Bytes), float64(s.Of)), part(float64(t.n), float64(t.limit.Requests)), part(float64(at), float64(t.limit.Within)))
	t.done.Store(math.Float64bits(f))
}

func (t *reading) fraction() float64 { return math.Float64frombits(t.done.Load()) }

// notes says what of the trace was not taken as it is in its files. It is for when
// nothing reads it any more.
func (t *reading) notes() (out []string) {
	s := t.files.Stats()
	note := func(n uint64, format string) {
		if n > 0 {
			out = append(out, fmt.Sprintf(format, n))
		}
	}
	note(s.Bad, "%d records of the trace were skipped, as they cannot be read (trace.skip_bad)")
	note(s.Late, "%d requests of the trace are far from their place in its order, and were taken where they stand")
	if t.compat {
		note(s.Left, "%d requests of the trace are not of those that the original took (trace.compat)")
	}
	return out
}

// tell says on the log what notes has.
func (p *Replayer) tell(t *reading) {
	for _, text := range t.notes() {
		p.logf("Note: %s", text)
	}
}

// Close closes the files.
func (t *reading) Close() error { return t.files.Close() }

var _ interface {
	trace.Reader
	io.Closer
} = (*reading)(nil)

package origin

import (
	"context"
	"io"
	"net/http"
	"time"
)

// Fault is what happens to one request. The zero Fault is an honest answer.
type Fault struct {
	// Delay is waited before the answer.
	Delay time.Duration
	// Status, if not 0, is the answer, with Body.
	Status int
	Body   string
	// Header is added to the answer, over what is there; an empty value
	// removes a field.
	Header map[string]string
	// CutAfter, if not 0, ends the connection after so many body bytes.
	CutAfter int64
	// Truncate, if not 0, leaves out so many bytes at the end and announces
	// the shorter length.
	Truncate int64
	// Unframed sends no length: the end of the connection is the end.
	Unframed bool
	// Lie sends these bytes, over and over, instead of the right ones.
	Lie []byte
	// Flip, if not 0, inverts the byte with this index of the blob.
	Flip int64
	// IgnoreRange answers a range read with 200 and everything.
	IgnoreRange bool
	// Shift, if not 0, answers a range read with a range so many bytes later.
	Shift int64
	// HoldAt, if not 0, waits for Release before the byte of the blob with
	// this index.
	HoldAt int64
	// Hang waits for Release before the answer.
	Hang bool
	// Rate, if not 0, is the pace of the body in bytes a second.
	Rate int64
	// Redirect sends a reader of a blob to presigned storage.
	Redirect bool
	// RedirectTo sends the reader to any URL.
	RedirectTo string
}

// Rule decides what happens to a request.
type Rule func(*http.Request) Fault

// SetRule replaces the rule; nil is honest throughout.
func (o *Origin) SetRule(r Rule) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rule = r
}

// Release lets what hangs or is held go on. Later requests hang anew.
func (o *Origin) Release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.release)
	o.release = make(chan struct{})
}

// pause waits as long as the fault says and reports whether to go on.
func (f Fault) pause(ctx context.Context, release <-chan struct{}) bool {
	if !f.Hang {
		release = nil
	} else if f.Delay == 0 {
		f.Delay = 24 * time.Hour
	}
	if f.Delay == 0 {
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case <-release:
	case <-time.After(f.Delay):
	}
	return true
}

// chunk is how much of a body is written at once.
const chunk = 64 << 10

// answer is a body on its way to a client.
type answer struct {
	w       http.ResponseWriter
	fault   Fault
	release <-chan struct{}
	sent    int64
	begun   time.Time
	count   func(n int64)
}

// send writes [off, end) of body, damaged as the fault says.
func (a *answer) send(ctx context.Context, body io.ReaderAt, off, end int64) {
	a.begun = time.Now()
	buf := make([]byte, chunk)
	for off < end {
		n := min(chunk, end-off)
		if h := a.fault.HoldAt; h > off {
			n = min(n, h-off)
		}
		if cut := a.fault.CutAfter; cut != 0 {
			n = min(n, cut-a.sent)
			if n <= 0 {
				a.abort()
			}
		}
		if h := a.fault.HoldAt; h != 0 && off == h && !a.hold(ctx) {
			a.abort()
		}
		p := buf[:n]
		if _, err := body.ReadAt(p, off); err != nil && err != io.EOF {
			a.abort()
		}
		a.damage(p, off)
		if !a.pace(ctx) {
			a.abort()
		}
		m, err := a.w.Write(p)
		a.sent += int64(m)
		a.count(int64(m))
		if err != nil {
			return
		}
		off += n
	}
}

// abort ends the connection after what has been written is on its way.
func (a *answer) abort() {
	http.NewResponseController(a.w).Flush() //nolint:errcheck // the connection ends anyway
	panic(http.ErrAbortHandler)
}

func (a *answer) hold(ctx context.Context) bool {
	http.NewResponseController(a.w).Flush() //nolint:errcheck // then the wait shows it
	select {
	case <-ctx.Done():
		return false
	case <-a.release:
		return true
	}
}

func (a *answer) damage(p []byte, off int64) {
	if lie := a.fault.Lie; len(lie) > 0 {
		for i := range p {
			p[i] = lie[(off+int64(i))%int64(len(lie))]
		}
	}
	if at := a.fault.Flip - off; a.fault.Flip != 0 && at >= 0 && at < int64(len(p)) {
		p[at] ^= 0xff
	}
}

// pace waits until what was sent is no more than the rate allows.
func (a *answer) pace(ctx context.Context) bool {
	if a.fault.Rate == 0 {
		return true
	}
	due := a.begun.Add(time.Duration(float64(a.sent) / float64(a.fault.Rate) * float64(time.Second)))
	wait := time.Until(due)
	if wait <= 0 {
		return true
	}
	http.NewResponseController(a.w).Flush() //nolint:errcheck // the next write shows it
	select {
	case <-ctx.Done():
		return false
	case <-time.After(wait):
		return true
	}
}

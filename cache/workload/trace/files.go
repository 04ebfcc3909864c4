package trace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Config says what is read.
type Config struct {
	// Location is the folder of Files; "" is the current one.
	Location string
	// Files are names below Location; "-" is standard input, and must be alone.
	Files []string
	// Original keeps only what the original replayer did, see IsOriginal.
	Original bool
	// SkipBad counts records that cannot be read. Otherwise they are errors.
	SkipBad bool
	// Window is how many records of a file are held to put them into order of time.
	// Default 16384.
	Window int
}

// FilesStats counts what was read.
type FilesStats struct {
	Records uint64 // that were given
	Bad     uint64 // that could not be read
	Left    uint64 // that were left out by Config.Original
	Late    uint64 // that came so late in their file that they are not in order
	Bytes   int64  // of the files, as they are on disk
	Of      int64  // of all files; 0 when that is not known
}

// Files is the requests of trace files, merged by time. It is a Reader; memory goes
// by the number of files whose times overlap, not by their length.
type Files struct {
	cfg   Config
	rest  []*input     // not begun yet, by time of their first request
	live  heap[*input] // that are being read, by time of their next request
	start time.Time    // of the earliest file
	first time.Time    // of the first request given
	last  time.Time
	stats FilesStats
	timed bool
	err   error // to be returned from now on
}

// input is one file.
type input struct {
	path   string
	nth    int       // among those of the same time
	first  time.Time // of its requests, as far as was looked
	file   *os.File
	counts *counting
	stream *Stream
	window window
}

// Open looks at all files, so that one that is missing or none of a trace is an error
// now and not in an hour. The caller closes what it returns.
func Open(cfg Config) (_ *Files, err error) {
	if len(cfg.Files) == 0 {
		return nil, errors.New("opening traces: no file is named")
	}
	if cfg.Window <= 0 {
		cfg.Window = 16384
	}
	f := &Files{cfg: cfg, live: heap[*input]{less: before}}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	for _, name := range cfg.Files {
		if name == "-" && len(cfg.Files) > 1 {
			return nil, errors.New("opening traces: standard input (-) must be the only file")
		}
		in := &input{path: name}
		if name != "-" && !filepath.IsAbs(name) {
			in.path = filepath.Join(cfg.Location, name)
		}
		some, err := f.look(in, len(cfg.Files) == 1)
		if err != nil {
			return nil, err
		}
		if some {
			f.rest = append(f.rest, in)
		}
	}
	return f, f.order()
}

// order says in which order the files begin.
func (f *Files) order() error {
	if len(f.rest) == 0 {
		return nil
	}
	f.timed = !f.rest[0].first.IsZero()
	for _, in := range f.rest {
		if timed := !in.first.IsZero(); timed != f.timed {
			return fmt.Errorf("opening traces: of %s and %s only one has times, so they cannot be merged", f.rest[0].path, in.path)
		}
	}
	if f.timed {
		slices.SortStableFunc(f.rest, func(a, b *input) int { return a.first.Compare(b.first) })
	}
	for i, in := range f.rest {
		in.nth = i
	}
	f.start = f.rest[0].first
	return nil
}

// before orders inputs by their next requests.
func before(a, b **input) bool {
	c := (*a).window.peek().Time.Compare((*b).window.peek().Time)
	return c < 0 || c == 0 && (*a).nth < (*b).nth
}

// looked is how many records at the start of a file are searched for its first time.
const looked = 256

// look opens a file, finds when it begins and reports whether there is anything in
// it. The file is left open when it is the only one or, like a pipe, could not be
// read again.
func (f *Files) look(in *input, only bool) (bool, error) {
	if err := in.open(f.cfg); err != nil {
		return false, err
	}
	if err := in.window.fill(in.stream, min(looked, f.cfg.Window)); err != nil && !errors.Is(err, io.EOF) {
		in.close()
		return false, err
	}
	in.first = in.window.first()
	some := in.window.len() > 0
	info, err := in.file.Stat()
	regular := err == nil && info.Mode().IsRegular()
	if regular {
		f.stats.Of += info.Size()
	}
	switch {
	case !some:
		f.ended(in)
	case regular && !only:
		in.close()
	}
	return some, nil
}

func (in *input) open(cfg Config) (err error) {
	if in.stream != nil {
		return nil
	}
	if in.path == "-" {
		in.file = os.Stdin
	} else if in.file, err = os.Open(in.path); err != nil {
		return fmt.Errorf("opening traces: %w", err)
	}
	in.counts = &counting{r: in.file}
	if in.stream, err = NewReader(in.counts, in.path); err != nil {
		in.file.Close()
		return err
	}
	in.stream.skipBad = cfg.SkipBad
	in.window = window{}
	return nil
}

func (in *input) close() {
	if in.stream == nil {
		return
	}
	in.stream.Close()
	in.stream, in.window = nil, window{}
	if in.path != "-" {
		in.file.Close()
	}
}

// counting counts what is read of a file.
type counting struct {
	r io.Reader
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// Next implements Reader.
func (f *Files) Next() (Request, error) {
	for {
		r, err := f.next()
		if err != nil {
			return r, err
		}
		if f.cfg.Original && !IsOriginal(r) {
			f.stats.Left++
			continue
		}
		if f.timed {
			f.time(&r)
		}
		f.stats.Records++
		return r, nil
	}
}

// time gives a request its place in time: no earlier than the one before.
func (f *Files) time(r *Request) {
	if r.Time.IsZero() { // as all before it in its file
		r.Time = f.start
	}
	if f.stats.Records == 0 {
		f.first, f.last = r.Time, r.Time
	}
	if r.Time.Before(f.last) {
		f.stats.Late++
		r.Time = f.last
	}
	f.last = r.Time
	r.Delay = r.Time.Sub(f.first)
}

// next returns the earliest request of all files.
func (f *Files) next() (Request, error) {
	for f.err == nil && len(f.rest) > 0 && f.due() {
		f.err = f.begin()
	}
	if f.err != nil {
		return Request{}, f.err
	}
	if len(f.live.a) == 0 {
		return Request{}, io.EOF
	}
	in := f.live.a[0]
	r := in.window.pop()
	if err := in.window.fill(in.stream, f.window()); err != nil && !errors.Is(err, io.EOF) {
		f.err = err // r is still good
	}
	if in.window.len() == 0 {
		f.live.pop()
		f.ended(in)
		return r, nil
	}
	f.live.fix()
	return r, nil
}

// due reports whether the next file begins before the next request of those that are
// being read.
func (f *Files) due() bool {
	if len(f.live.a) == 0 {
		return true
	}
	return f.timed && !f.rest[0].first.After(f.live.a[0].window.peek().Time)
}

// begin opens the next file.
func (f *Files) begin() error {
	in := f.rest[0]
	if err := in.open(f.cfg); err != nil {
		return err
	}
	f.rest = f.rest[1:]
	err := in.window.fill(in.stream, f.window())
	if in.window.len() == 0 { // it was changed since it was looked at
		f.ended(in)
	} else {
		f.live.push(in)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// window returns how many requests of a file are held: without times there is no
// order to be made.
func (f *Files) window() int {
	if f.timed {
		return f.cfg.Window
	}
	return 1
}

// ended closes a file that is read, or is not to be read on.
func (f *Files) ended(in *input) {
	if in.stream != nil {
		f.stats.Bytes += in.counts.n
		f.stats.Bad += in.stream.bad
	}
	in.close()
}

// Stats says what was read so far. It is for the goroutine that calls Next.
func (f *Files) Stats() FilesStats {
	s := f.stats
	for _, in := range f.live.a {
		s.Bytes += in.counts.n
		s.Bad += in.stream.bad
	}
	return s
}

// Close closes what is open. It may be called at any time and more than once; Stats
// stay.
func (f *Files) Close() error {
	for _, in := range f.live.a {
		f.ended(in)
	}
	for _, in := range f.rest {
		f.ended(in)
	}
	f.live.a, f.rest = nil, nil
	return nil
}

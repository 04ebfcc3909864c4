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
	rest  []*input // not open yet, by time of their first request
	live  []*input
	first time.Time // of the first request given
	last  time.Time
	stats FilesStats
	timed bool
}

// input is one file.
type input struct {
	path   string
	first  time.Time
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
	f := &Files{cfg: cfg}
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
		if err := f.look(in, len(cfg.Files) == 1); err != nil {
			return nil, err
		}
		if in.window.len() > 0 {
			f.rest = append(f.rest, in)
		}
	}
	if len(f.rest) == 0 {
		return f, nil
	}
	f.timed = !f.rest[0].first.IsZero()
	for _, in := range f.rest {
		if timed := !in.first.IsZero(); timed != f.timed {
			return nil, fmt.Errorf("opening traces: of %s and %s only one has times, so they cannot be merged", f.rest[0].path, in.path)
		}
	}
	if f.timed {
		slices.SortStableFunc(f.rest, func(a, b *input) int { return a.first.Compare(b.first) })
	}
	return f, nil
}

// looked is how many records at the start of a file are searched for its first time.
const looked = 256

// look opens a file and finds when it begins. It is left open when it is the only one.
func (f *Files) look(in *input, only bool) error {
	if err := in.open(f.cfg); err != nil {
		return err
	}
	err := in.window.fill(in.stream, min(looked, f.cfg.Window))
	if err != nil && err != io.EOF {
		in.close()
		return err
	}
	if r, ok := in.window.peek(); ok {
		in.first = r.Time
	}
	if info, err := in.file.Stat(); err == nil && info.Mode().IsRegular() {
		f.stats.Of += info.Size()
	}
	if !only {
		in.close()
	}
	return nil
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
	in.stream = nil
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
		if f.stats.Records == 0 {
			f.first, f.last = r.Time, r.Time
		}
		if f.timed {
			if r.Time.Before(f.last) {
				f.stats.Late++
				r.Time = f.last
			}
			f.last = r.Time
			r.Delay = r.Time.Sub(f.first)
		}
		f.stats.Records++
		return r, nil
	}
}

// next returns the earliest request of all files.
func (f *Files) next() (Request, error) {
	for {
		in, err := f.earliest()
		if err != nil {
			return Request{}, err
		}
		// A file that begins before this request is opened first.
		if len(f.rest) > 0 && (in == nil || f.timed && f.opens(in)) {
			if err := f.begin(); err != nil {
				return Request{}, err
			}
			continue
		}
		if in == nil {
			return Request{}, io.EOF
		}
		r := in.window.pop()
		return r, nil
	}
}

func (f *Files) opens(in *input) bool {
	r, _ := in.window.peek()
	return !f.rest[0].first.After(r.Time)
}

// begin opens the next file.
func (f *Files) begin() error {
	in := f.rest[0]
	if err := in.open(f.cfg); err != nil {
		return err
	}
	f.rest = f.rest[1:]
	f.live = append(f.live, in)
	return nil
}

// earliest returns the file whose next request is the earliest, nil when none is
// open. Files that are at their end are closed.
func (f *Files) earliest() (best *input, err error) {
	for i := 0; i < len(f.live); {
		in := f.live[i]
		err := in.window.fill(in.stream, f.window())
		if err != nil && err != io.EOF {
			return nil, err
		}
		r, ok := in.window.peek()
		if !ok {
			f.ended(in)
			f.live = slices.Delete(f.live, i, i+1)
			continue
		}
		if best == nil {
			best = in
		} else if b, _ := best.window.peek(); r.Time.Before(b.Time) {
			best = in
		}
		i++
	}
	return best, nil
}

// window returns how many requests of a file are held: without times there is no
// order to be made.
func (f *Files) window() int {
	if f.timed {
		return f.cfg.Window
	}
	return 1
}

func (f *Files) ended(in *input) {
	f.stats.Bytes += in.counts.n
	f.stats.Bad += in.stream.bad
	in.close()
}

// Stats says what was read so far. It is for the goroutine that calls Next.
func (f *Files) Stats() FilesStats {
	s := f.stats
	for _, in := range f.live {
		s.Bytes += in.counts.n
		s.Bad += in.stream.bad
	}
	return s
}

// Close closes what is open. It may be called at any time and more than once.
func (f *Files) Close() error {
	for _, in := range append(f.live, f.rest...) {
		in.close()
	}
	f.live, f.rest = nil, nil
	return nil
}

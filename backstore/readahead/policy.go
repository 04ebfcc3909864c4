package readahead

import "time"

// Policy decides what to read ahead of the reads of one device. It does no I/O,
// its answers depend on nothing but the calls before. It is not called in
// parallel.
type Policy interface {
	// Next enters a read of n bytes at off and returns what to read ahead of it.
	Next(off, n int64) Ahead
	// Observe tells how long a read of n bytes took of which nothing was held.
	Observe(n int64, took time.Duration)
}

// Ahead is what to read ahead of a read. What is held locally already is not
// read again, and no read is taken apart around it.
type Ahead struct {
	// Read is what the read becomes if it finds nothing held: at least itself.
	Read Span
	// Polite is set if the read becomes that only while nobody else waits for
	// the registry.
	Polite bool
	// Background is what nobody waits for, or empty.
	Background Span
}

// Span is a range of a device, in bytes.
type Span struct{ Off, End int64 }

const (
	streamCount = 16       // readers in parallel that are told apart
	extra       = 64 << 10 // bytes by which a read of a stream is made longer at most; beyond, background reads
	align       = 4 << 10  // bytes; what is read ahead ends on such a boundary
)

// stream is a run of reads close behind each other.
type stream struct {
	next  int64 // offset behind the last read
	run   int64 // bytes read
	ahead int64 // offset behind the last background read asked for
}

// streams are the most recent streams of a device.
type streams struct {
	gap    int64    // bytes that a stream may leave out
	recent []stream // most recently used first
}

// enter returns the stream that [off, off+n) continues, or a new one, as the
// most recently used. It is valid until the next call.
func (s *streams) enter(off, n int64) *stream {
	i := 0
	for i < len(s.recent) && (off < s.recent[i].next || off-s.recent[i].next > s.gap) {
		i++
	}
	at := stream{next: off}
	switch {
	case i < len(s.recent):
		at = s.recent[i]
	case len(s.recent) < streamCount:
		s.recent = append(s.recent, stream{})
	default:
		i--
	}
	copy(s.recent[1:i+1], s.recent[:i])
	at.next = off + n
	at.run += n
	s.recent[0] = at
	return &s.recent[0]
}

// readAhead returns what to read ahead of a stream that has just read n bytes, with
// the given window of bytes in front of it.
func (s *stream) readAhead(n, window, size int64) Ahead {
	a := Ahead{Read: Span{s.next - n, s.next}}
	to := min(s.next+window, size) / align * align
	if window <= extra {
		a.Read.End = max(to, s.next)
		return a
	}
	// The read after this one will be on its way before the background read is.
	from := max(s.ahead, s.next+n)
	if to-from >= window/2 {
		s.ahead = to
		a.Background = Span{from, to}
	}
	return a
}

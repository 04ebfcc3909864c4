package lsmt

// Find returns the number of the first segment that ends after sector.
func (m *Image) Find(sector int64) int { return m.index.find(uint64(sector)) }

// NewImage returns an image of the given segments over files.
func NewImage(size int64, segments []Segment) *Image {
	return &Image{index: newIndex(newEntries(segments)), size: size}
}

func newEntries(segments []Segment) []entry {
	entries := make([]entry, len(segments))
	for i, s := range segments {
		entries[i] = newEntry(uint64(s.Offset), uint64(s.Length), uint64(s.Mapped), s.Zeroed)
	}
	return entries
}

// BuildLayer returns a committed layer with exactly these data and records,
// right or wrong.
func BuildLayer(id Identity, data []byte, records []Segment) []byte {
	h := header{Identity: id, flags: flagHeader | flagData | flagSealed}
	b := append(h.encode(), data...)
	h.flags, h.indexOffset, h.records = flagData|flagSealed, uint64(len(b)), uint64(len(records))
	for _, e := range newEntries(records) {
		b = appendRecord(b, e)
	}
	return append(b, h.encode()...)
}

// BuildLog returns the files of an append-only layer with exactly these data
// and records.
func BuildLog(id Identity, data []byte, records []Segment) (dataFile, indexFile []byte) {
	h := header{Identity: id, flags: flagHeader | flagData}
	dataFile = append(h.encode(), data...)
	h.flags, h.indexOffset = flagHeader, HeaderSize
	indexFile = h.encode()
	for _, e := range newEntries(records) {
		indexFile = appendRecord(indexFile, e)
	}
	return dataFile, indexFile
}

// Records decodes the records of an index, without padding.
func Records(raw []byte) []Segment {
	var out []Segment
	for ; len(raw) >= recordSize; raw = raw[recordSize:] {
		if e, ok := decodeRecord(raw); ok {
			out = append(out, e.segment())
		}
	}
	return out
}

// Abandon closes the files of u as the end of a process does.
func Abandon(u *Upper) {
	u.using.Lock()
	defer u.using.Unlock()
	u.closed = true
	_ = u.body.close()
}

// LimitSegments sets how many segments the index of u takes.
func LimitSegments(u *Upper, n int) { u.limit = n }

// Fail has operations on the files of u ask fail first: write, truncate, sync,
// punch. A write that is to fail is made in part.
func Fail(u *Upper, fail func(op string) error) {
	wrap := func(f hostFile) hostFile {
		if failing, ok := f.(*failingFile); ok {
			f = failing.hostFile
		}
		return &failingFile{hostFile: f, fail: fail}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.file = wrap(u.file)
	switch b := u.body.(type) {
	case *appended:
		b.data, b.log.file, b.reclaim.file = u.file, wrap(b.log.file), u.file
	case *inplace:
		b.data = u.file
	}
}

type failingFile struct {
	hostFile
	fail func(op string) error
}

func (f *failingFile) ask(op string) error {
	if f.fail == nil {
		return nil
	}
	return f.fail(op)
}

func (f *failingFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.ask("write"); err != nil {
		n, _ := f.hostFile.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return f.hostFile.WriteAt(p, off)
}

func (f *failingFile) truncate(n int64) error {
	if err := f.ask("truncate"); err != nil {
		return err
	}
	return f.hostFile.truncate(n)
}

func (f *failingFile) sync() error {
	if err := f.ask("sync"); err != nil {
		return err
	}
	return f.hostFile.sync()
}

func (f *failingFile) punch(off, n int64) error {
	return f.hostFile.punch(off, n)
}

// LiveIndex is the index of a writable layer.
type LiveIndex struct{ x live }

// Put adds a segment and returns how many mapped sectors died.
func (l *LiveIndex) Put(offset, length, mapped uint64, zeroed bool) (dead uint64) {
	l.x.put(newEntry(offset, length, mapped, zeroed), func(_, n uint64) { dead += n })
	return dead
}

// Cut removes sectors and returns how many mapped ones died.
func (l *LiveIndex) Cut(start, end uint64) (dead uint64) {
	l.x.cut(start, end, func(_, n uint64) { dead += n })
	return dead
}

// Find returns the first segment that ends after sector.
func (l *LiveIndex) Find(sector uint64) (Segment, bool) {
	e, ok := l.x.at(l.x.find(sector))
	return e.segment(), ok
}

func (l *LiveIndex) Len() int       { return l.x.n }
func (l *LiveIndex) Stored() uint64 { return l.x.stored }
func (l *LiveIndex) Segments() (out []Segment) {
	for _, e := range l.x.entries() {
		out = append(out, e.segment())
	}
	return out
}

// FlushesWaiting returns how many flushes of u wait for the one at work.
func FlushesWaiting(u *Upper) int { return int(u.flush.waiting.Load()) }

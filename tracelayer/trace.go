package tracelayer

// MaxCount is the longest read that a record may have, in bytes: upstream
// replays into a buffer of this size without looking.
const MaxCount = 1 << 20

// Op says what a record is about.
type Op byte

const (
	// Read is a read, the only operation that is ever replayed.
	Read Op = 'R'
	// Write is defined and never produced.
	Write Op = 'W'
)

// Record is one read of a layer.
type Record struct {
	Op Op
	// Layer counts the layers of the device from the bottom, which is 0,
	// without a trace layer.
	Layer uint32
	// Off and Count (bytes) are of the layer's uncompressed LSMT stream.
	Off, Count int64
}

// Trace is the reads of a start, in the order in which they ended.
type Trace []Record

// Package sectors loads a disk with writes, discards, write-zeroes and flushes
// and knows afterwards, for each sector, what may be on it.
//
// Workers own disjoint regions whose borders are aligned to nothing but sectors.
// A worker does one thing at a time, numbers what it does, and notes it before
// it does it; a written sector is filled with what only its worker, the number
// and its place give (see stamp). So of any content it can be said which write it
// is of, and whether that was ever made there.
//
// What must be there is a Floor: the number, of each sector, of the operation
// that the disk answers for. Acknowledged is that of a disk that forgets nothing
// it has acknowledged: what a daemon's end must not take away, as long as the
// machine runs. Durable is that of a disk with a volatile cache that lost its
// power. What is newer may be there as well, if it was begun: sector by
// sector, since nothing more is promised of a write that was cut off.
package sectors

// Package lsmt reads and writes overlaybd's layer format and merges a stack of
// layers into the block device they describe.
//
// A layer is a log-structured merge tree of one level: the data of changed
// sectors, one after the other, and an index that maps ranges of the virtual
// disk to them.
//
//	| header 4096 | data | index: 16 bytes a record | trailer 4096 |
//
// A record may also say that a range reads as zeros ("zeroed"). Where the index
// is silent the layer below shows through. Offsets and lengths in records
// count sectors of 512 bytes. All numbers are little endian. The format has no
// checksums; those are the business of the ZFile and the registry.
//
// Beside committed layers there is what a layer is while it grows: an
// append-only pair of data and index log, or a sparse file, and the same sealed
// in place. OpenWritable reads one as it is; an Upper is one that is written. A
// layer that overlaybd wrote can be written on by an Upper, and the other way
// round once the Upper is closed.
package lsmt

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
// Beside committed layers the package reads what overlaybd writes while a layer
// grows: sealed ones, append-only pairs of data and index log, and sparse
// files. It never changes them.
package lsmt

// Package zfile reads and writes ZFiles: a byte stream cut into blocks of
// equal length, each compressed by itself, so that any range can be read by
// decoding only the blocks it touches.
//
//	| header 512 | dictionary | block 0 | block 1 | ... | jump table | trailer 512 |
//
// The jump table holds the stored length of every block as a 32 bit number.
// Header and trailer share one layout; a file written in one pass has the
// final values only in its trailer, one whose header was overwritten at the
// end has them in both. All numbers are little endian. All checksums are
// "raw" CRC-32C: the Castagnoli polynomial without the usual inversions.
//
// The format is overlaybd's; readers and writers here are exchangeable with
// it, and the rules an error names are those of its documentation and code.
package zfile

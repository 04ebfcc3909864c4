// Package chunks builds and reads chunk tables: the SHA-256 of each chunk of
// a blob, the leaves of a tree of two levels, so that any range of the blob can
// be verified with little more than that range. Leaf is the word here; who
// speaks to people says chunk.
//
//	| header 40 | index: 36 bytes a page | page 0 | page 1 | ... |
//
// A page holds the lengths and hashes of some neighbouring leaves, 32 unless
// its writer chose otherwise; the index the hash of each page and how many
// bytes of the blob it covers. The root digest is the hash of header and index,
// and whoever knows it needs those once, and a page when a read touches it.
//
// The format is this project's own. docs/chunks.md describes it to the byte,
// with the reasons; all numbers are little endian.
package chunks

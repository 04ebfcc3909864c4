// Package replay fetches what a plan says a start will read, ahead of the start.
//
// Where the bytes come from depends on the layer. One that has a chunk table gets
// them from the data of the trace layer, if there are any: one sequential
// download for all such layers. The bytes are staged below what verifies the
// layer, read through it, and so cached once they are known to be right. All
// else is read by ranges of the layers' own blobs, neighbours together.
//
// Two rules hold either way. A read that somebody waits for goes first: while
// one is under way at the host, nothing more is asked for, and what was asked
// for already is bounded to what the line holds. And nothing that is wrong with
// a plan, its data or the registry is an error of anybody's start: it is
// skipped and counted.
package replay

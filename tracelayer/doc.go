// Package tracelayer holds the reads of a recorded container start: in memory
// while they are recorded, as upstream's trace file, as a fetch plan, and as the
// topmost layer of an image that carries both.
//
// Three things describe a start, each made from the one before:
//
//   - A Trace lists reads of the layers' uncompressed LSMT streams, in the form
//     that overlaybd records and replays (formats of overlaybd, src/prefetch.cpp).
//     It is independent of how layers are compressed.
//   - A Plan lists the ranges of the layers' blobs that a node which has nothing
//     would fetch for those reads, in order of need, each with its SHA-256. It
//     includes what is read to open the layers and to verify them, so that a
//     replay waits for no index, jump table or chunk table.
//   - The data are the bytes of those ranges one behind the other, so that a
//     replay is one sequential download and not thousands of small requests.
//
// A trace layer is a tar archive of up to three members: "trace", which is all
// that overlaybd looks at, "trace.plan" and "trace.data".
package tracelayer

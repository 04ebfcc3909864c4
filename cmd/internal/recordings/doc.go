// Package recordings records the reads of containers, each from a device of its
// own, and writes the traces.
//
// How a recording is handed over is upstream's contract, with more files. A
// client names an empty file FILE. Once the container is prepared there is
// FILE.lock. When that is gone, or the container is, these are written: FILE, the
// trace; FILE.plan, its fetch plan; FILE.data, the bytes of the plan; and then
// FILE.ok, or FILE.err with the reason why there is no trace. Without a plan, which
// needs the blobs as the registry has them, there is the trace alone.
//
// What is recorded because the node wants it, or without a name, is written in
// the same way to files below a directory of the node's, and ends by itself.
//
// The daemon writes these files as root where a client says. So the file must
// exist already, be empty, regular and root's, and nobody else may be able to
// replace it: see target.
package recordings

// Package recordings records the reads of containers, each from a device of its
// own, and writes the traces.
//
// How a recording is handed over is told in package handover.
//
// What is recorded because the node wants it, or without a name, is written in
// the same way to files below a directory of the node's, and ends by itself.
//
// The daemon writes these files as root where a client says, and with CRI that is
// whoever makes pods. So the file must be below a directory that the administrator
// named, exist already, be empty, regular and root's, and nobody else may be able to
// replace it or a directory on the way: see target.
package recordings

// Package record makes a copy of an image that carries a trace of its start.
//
// A temporary container of the image runs while the snapshotter notes what is
// read of its layers. The trace, a plan of what a node without anything would
// fetch for it, and those bytes become the topmost layer of the new image. Its
// layers below, its snapshots and its content are those of the old one, so the new
// image takes as much space as its trace.
//
// The snapshotter is told by labels on the container's snapshot to record into a
// file, see package handover.
package record

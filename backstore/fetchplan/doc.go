// Package fetchplan turns the recorded reads of an image into what has to be
// fetched for them: ranges of the layers' blobs, in order of need.
//
// Build finds out by doing it: it opens the layers as a node does that has
// nothing, verifying them with their chunk tables, makes the reads of the trace,
// and notes what reaches the blobs. So the plan has the tar and ZFile headers, jump
// tables, LSMT indexes and pages of chunk tables that a start waits for, at the
// place where it does, and nothing that it does not read.
//
// Map only looks up, in the jump tables, where the reads of a trace lie: for
// traces that came without a plan, on a node that has opened the layers anyway.
//
// Order is that of need, but for neighbours: of every 64 KiB, what lies together
// in a blob comes together.
//
// An extent is the unit in which a replay uses what has arrived, so extents stay
// small. Those of a layer with a chunk table are whole leaves, and can each be
// verified as soon as the pages before it are there.
package fetchplan

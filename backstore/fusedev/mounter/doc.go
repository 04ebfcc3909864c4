// Package mounter does in short-lived child processes what a FUSE daemon must
// not do itself: make, mount, freeze, grow, unmount and tune file systems whose
// reads and writes the daemon answers. A thread that waits inside mount(2) for its own process cannot be
// killed; a child that waits for a daemon that was killed merely waits for the
// next one.
//
// A job is one JSON line on the child's standard input; its result is one on
// the standard output. The input then stays open for as long as the parent
// wants the result: when it ends, because the parent gave up or was killed,
// the child undoes what it did. Nothing has to be cleaned up after a child
// that dies itself, since its loop device frees itself (LO_FLAGS_AUTOCLEAR)
// unless it was mounted, or handed out. What cannot be undone that way, a file
// system that is frozen, is recorded before, and undone by the next job.
package mounter

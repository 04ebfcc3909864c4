// Package handover names the files in which a recorded start is handed over,
// between who records and who wants it.
//
// The contract is upstream's (overlaybd, src/image_file.cpp), with more files. A
// client makes an empty file FILE and names it to the snapshotter, by a label on a
// container's snapshot. There is FILE.lock for as long as reads are recorded. When
// the client removes it, or the container is gone, these are written: FILE, the
// trace; FILE.plan, its fetch plan; FILE.data, the bytes of the plan; and then
// FILE.ok, which says that all of it is there. If there is no trace, FILE.err is
// written in place of FILE.ok and has the reason, a line of text. Without a plan,
// which needs the blobs as the registry has them, there is FILE alone.
//
// Who has FILE, FILE.plan and FILE.data has the whole recording: commands take it
// by the name FILE.
package handover

// Suffixes of the files beside FILE.
const (
	Lock = ".lock"
	Plan = ".plan"
	Data = ".data"
	OK   = ".ok"
	Err  = ".err"
)

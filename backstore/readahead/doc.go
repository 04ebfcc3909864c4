// Package readahead reads ahead over a device on the daemon's own account.
//
// While an image is cold the kernel's readahead is off, because FUSE cannot
// tell readahead from need (see docs/device.md): a program that reads a file
// from front to back, or that faults in a library, then asks for one page at a
// time and pays a round trip for each. This package watches the reads of a device
// and asks for more than they do: a read of what is not held is made longer, which
// costs no further round trip, and ahead of long streams there are background
// reads, which give way to demand at the connection limit.
//
// What to read ahead is a Policy's to say, which does no I/O. See
// docs/readahead.md for what they cost and gain.
package readahead

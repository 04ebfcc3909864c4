// Package fusedev shows devices to the kernel as files of one FUSE file system
// and mounts the file systems inside them.
//
// The path of a read is: container, ext4 or xfs, loop device with direct I/O,
// FUSE file, Server, device.Device; or, for erofs on kernels from 6.12 on,
// without the loop device.
//
// # Lives
//
// Three kinds of processes work together. The daemon runs a Server. The holder
// (package holder) keeps the /dev/fuse descriptor when the daemon ends or is
// killed; reads that nobody answers then wait for the next daemon, which takes
// the descriptor over and asks the kernel to resend them. Children (package
// mounter) mount and unmount, since a daemon that enters the kernel on behalf
// of its own file system cannot be killed there. For the same reason a daemon
// must not open, stat or walk anything that is mounted through its own Server.
//
// So that a successor can go on, a device's inode number is recorded in the
// state directory before the kernel hears of it, and there are no file handles.
// Reads of a device that the last daemon had and this one has not been given
// yet wait for Add, or for Ready, which says that no more will be added.
//
// A program that uses the package calls Child first thing in main.
//
// # Kernel readahead
//
// It is off everywhere: FUSE cannot tell readahead from need, so it would
// compete with reads that somebody waits for, and be recorded as need. Once a
// device is local, SetReadahead turns it on.
package fusedev

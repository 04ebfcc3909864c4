// Package ext4 reads ext4 file systems as far as it takes to say where their
// files lie: what is recorded of a start by a list of files needs the blocks of
// content and metadata, and not a mount.
//
// It reads what mke2fs and overlaybd make and kernels write: extents and, of old
// inodes, block maps; linear and hashed directories; content within inodes; file
// systems of 32 and 64 bits, with flex_bg and meta_bg. It keeps nothing, so a
// reader below it that keeps blocks is what makes it fast. Nothing an image says
// is believed: sizes of what is read are bounded by the block size, extents must
// be in order and on the device.
//
// The format is that of Linux, fs/ext4/ext4.h and Documentation/filesystems/ext4.
package ext4

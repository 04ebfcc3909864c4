// Package erofs writes erofs file systems layer by layer, for images whose
// layers are changes of one block device, and reads them back.
//
// A Layer is what one image layer changes: it is made over the Image that the
// layers below form, takes entries as a tar archive states them, and ends up as
// blocks of the device that differ from those below. What is not touched is not
// written again: a directory entry holds the absolute number of an inode, so
// new metadata points into that of the layers below, and what must change in
// place is a changed block of the device, which a layered device gives for
// free.
//
// # Layout
//
// Blocks have 4096 bytes. Nothing is compressed, the layer around it is. Block
// 0 holds the superblock and, right behind it, the root directory's inode: its
// number has 16 bits in the superblock, so it can't move. Each layer appends to
// the device
//
//	data of regular files, each from a new block on
//	inodes, in the order of a walk that takes a directory before what is in it,
//	        and in a directory what is no directory first
//	blocks of directories that don't fit behind their inode
//
// and rewrites in place those blocks of the layers below that hold inodes or
// directories it changed.
//
// Inodes are of the extended form, 64 bytes, because times must be kept. Behind
// them are extended attributes and, of symbolic links and small directories,
// the content. Regular files have their content in blocks of their own, so
// that 64 inodes share a block and looking at a name fetches no content. The
// bytes that a container start needs decide such questions, see
// docs/benchmarks.md.
//
// An inode keeps its number, and so its place, when its file is replaced and
// the new one fits, and always if it is a directory, whose number its
// subdirectories know as "..". A directory of more than one block has some room
// in each, so that a new name usually changes one block.
//
// The format is that of Linux, fs/erofs/erofs_fs.h; features that kernels
// before 5.4 lack are not used.
package erofs

// Package convert makes overlaybd layers of OCI image layers: the tar archives
// that an image consists of become changes of one block device with an erofs
// file system (package erofs) in it, one layer each.
//
// A Chain holds one image while its layers are converted. What a layer's
// metadata is depends on the layers below, so Add reads the archives one after
// the other. What it leaves behind is compressed by Layer.Write, which may run
// for several layers at once and beside later Adds. A layer's blob depends on
// the archives up to its own and on nothing else: not on the layers above, on
// time, user, machine or the number of workers.
//
// Nothing is mounted and no file of an archive is made on the node, so neither
// root nor room for device nodes is needed. Content goes from the archive to a
// temporary file (Options.Dir) of the layer's uncompressed size without holes,
// removed by Layer.Close, because index and changed metadata go before it in
// the blob. Metadata is in memory while a layer is added, some hundred bytes
// for each file it states and what it shares a directory with; for later layers
// it is in another temporary file, of Chain.
//
// An archive is refused if it is cut off or has an entry
//
//   - whose path, or that of the file it is a hard link to, leaves the root with
//     "..", has more than 4095 bytes, a name of more than 255 or one with a NUL,
//     goes through more than 40 symbolic links or 8190 names, or through what the
//     same archive states as no directory
//   - that is a hard link to a directory, or to nothing of its layer or those below
//   - that is a symbolic link to "", or to more than 4095 bytes
//   - that is a whiteout without the name of a file, or of a type that is not known
//   - whose extended attributes are more than erofs can store with a file
//   - that no longer fits on the device (Options.VirtualSize)
//   - with which names and attributes take more than 1 GiB of memory: there are
//     some four million files
//
// What an entry means is what containerd makes of it when it unpacks a layer for
// overlayfs: attributes of the namespace trusted are dropped, for one. Where the
// OCI image specification is clearer, as for whiteouts beside what they name, it
// is followed.
package convert

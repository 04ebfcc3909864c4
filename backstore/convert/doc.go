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
package convert

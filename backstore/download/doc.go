// Package download fetches the rest of attached images in the background, so
// that they need no registry any more.
//
// Some time after an image was attached, and whenever nobody has been waiting
// for its registry for a while, its remote layers are downloaded one after
// another, each whole, as it is stored in the registry. The bytes are read
// through the same chain as those of the device, with background priority: what
// is cached is not fetched again, and need goes first. They are written to
//
//	<layer's directory>/.download
//
// and compared with the layer's digest as a whole, which for a layer without a
// chunk table is the only check against the manifest there is. Then the file is
// made durable, renamed to overlaybd.commit, where upstream's backstore and the
// next attach look for it, and the attached images read from it at once. A
// layer that several of them have is downloaded once.
//
// A file .download is a beginning of the blob. It outlives the daemon, and is
// read again, to be hashed, before it is added to. After a power failure it may
// hold something else than what was written: if a blob that was resumed has the
// wrong digest, it is taken from the start once more before anybody is accused.
//
// A registry that delivers something else than the digest says is reported, what
// came from it is dropped from the cache, too, and the layer is tried again
// later and later. A disk that is full, or would be, gets its space back, and
// the layer is tried again later: the space may be needed by readers.
package download

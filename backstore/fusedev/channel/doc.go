// Package channel speaks the FUSE protocol over a /dev/fuse descriptor that
// may be older than the process that uses it.
//
// The messages about names and attributes are handled by go-fuse (a
// fuse.RawFileSystem behind a fuse.ProtocolServer). Reading requests from the
// descriptor, and everything about the bytes of a file (READ, WRITE, FSYNC and
// FALLOCATE), is done here, for reasons that go-fuse's own Server does not allow
// for:
//
//   - It allocates a read's buffer before anybody can say whether the read may
//     run. Two hundred reads of 1 MiB that wait for a dead registry must cost
//     two hundred small structs, not 200 MiB.
//   - A taken-over descriptor needs no second INIT: the stored one is given to
//     the protocol server directly.
//   - Serving can stop without unmounting, and a read whose device was removed
//     is answered at once, even if the device does not let go of its buffer.
//   - The buffer that requests are read into is always resident. The kernel
//     fails a request with EIO, for good, when it cannot copy it to a process
//     that is being killed, and copying into a page that is not there yet is
//     what fails in such a process. With a fresh buffer for each request a
//     kill -9 at the wrong moment is an I/O error in a container.
//   - A write's payload is used where the kernel copied it to, in one of a
//     bounded number of buffers. To write back dirty pages is what frees memory
//     when there is none; it must not take more to do so.
//
// Byte layouts are those of include/uapi/linux/fuse.h, as declared by go-fuse.
package channel

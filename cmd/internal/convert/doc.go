// Package convert turns OCI images into overlaybd images, whole ones:
// multi-platform indexes, manifests, configs and the way of layers from a source
// to a destination. How a layer becomes a layer is package backstore/convert.
//
// Layers of an image go through stages, each with a bound on what it holds:
//
//	read    pieces of the compressed blob, some in flight; its digest
//	inflate gzip, zstd or nothing; limits; the diff ID
//	add     one layer after the other: metadata, content in a temporary file
//	write   compression into another temporary file, two layers at a time
//	store   what the destination has not: mounted or uploaded
//
// Reading and inflating the next layer goes ahead of adding, as far as their
// buffers reach. At most Config.Concurrency layers are between the beginning of
// add and the end of store, which bounds temporary files and memory.
//
// What is converted depends on the source's layers, compression, block size and
// virtual size only. So layers that are known to be the conversion of a chain of
// source layers are not converted again: see reuse.go.
package convert

// Package blob declares the two read interfaces that carry every byte of
// Reprise, from the registry up to the block device, and the decorators that
// add coalescing, retries, limits and observation around them.
//
// What a read wants to say or to hear besides travels in its context: Priority
// (WithPriority, Raisable), Transient for bytes that no cache is to keep, and
// Origins, which learns who served what. What some readers can do and others can
// not is an optional interface: Presence, Discarder, Rejecter. Decorators and
// formats hand both down.
//
// It is the leaf of the import graph: cache, tracelayer and backstore know
// remote data only through this package.
package blob

import (
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ReaderAt is an immutable sequence of bytes that can be read at any offset.
type ReaderAt interface {
	// Size returns the length in bytes. It never changes and never blocks.
	Size() int64

	// ReadAt reads len(p) bytes from offset off (bytes). It fills p or
	// returns an error, so n < len(p) implies err != nil; a read that
	// reaches past Size fills what there is and returns io.EOF. Parallel
	// calls are allowed. ReadAt does not keep p after it returned.
	ReadAt(ctx context.Context, p []byte, off int64) (n int, err error)
}

// Blob is a ReaderAt with an identity: content addressed and immutable, hence
// without Stat, Refresh or Close.
type Blob interface {
	ReaderAt

	// Descriptor returns the OCI descriptor the blob was opened with.
	// Descriptor().Size equals Size().
	Descriptor() ocispec.Descriptor
}

// Presence is the optional ability of a ReaderAt to tell which of its bytes
// can be read without the network. Decorators and formats pass the question
// down; a ReaderAt without the method is taken as not present.
type Presence interface {
	// Present reports whether all of [off, off+n) bytes are held locally.
	// It does not block on the network and makes no promise about later.
	Present(off, n int64) bool
}

// Present reports whether r says that [off, off+n) bytes are held locally.
func Present(r ReaderAt, off, n int64) bool {
	p, ok := r.(Presence)
	return ok && p.Present(off, n)
}

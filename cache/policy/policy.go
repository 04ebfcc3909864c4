// Package policy decides which entry of a cache to give up. Policies are pure:
// no I/O, no clock, no locks, no capacity of their own. The cache that owns one
// says what came and what was read again and asks for victims when it needs
// room, so the same code serves the engine on disk and a simulator.
//
// Entries are sized in bytes and may grow, because the engine's entries are
// sparse stretches of a blob that fill up bit by bit. For the same reason a
// touch carries the number of bytes read: an entry counts as used again once
// as many bytes as it holds were read from it, not once per call. A reader
// that walks through an entry in small steps thus looks the same as one that
// reads it in one go.
package policy

import (
	"fmt"
	"strings"
)

// Policy orders the entries of a cache by how soon they should go. It is not
// safe for parallel use.
type Policy[K comparable] interface {
	// Add grows the entry key by n bytes, creating it when it is new. A
	// negative n shrinks it; at zero bytes it stays known.
	Add(key K, n int64)

	// Touch says that n bytes of the entry key were read from the cache.
	// An unknown key is ignored.
	Touch(key K, n int64)

	// Remove forgets the entry key without counting it as evicted.
	Remove(key K)

	// Victim chooses an entry to give up, forgets it and returns it with its
	// size in bytes. ok is false when there is no entry left.
	Victim() (key K, size int64, ok bool)

	// Len returns the number of entries held, victims excluded.
	Len() int

	// Bytes returns the sum of the sizes of the entries held.
	Bytes() int64
}

// Names of the policies New knows.
const (
	NameLRU      = "lru"
	NameFIFO     = "fifo"
	NameCLOCK    = "clock"
	NameSIEVE    = "sieve"
	NameS3FIFO   = "s3fifo"
	NameLFU      = "lfu"
	NameGDSF     = "gdsf"
	NameTwoQ     = "2q"
	NameARC      = "arc"
	NameWTinyLFU = "wtinylfu"
)

// Names returns the names of all policies, the simplest first.
func Names() []string {
	return []string{
		NameLRU, NameFIFO, NameCLOCK, NameSIEVE, NameS3FIFO,
		NameLFU, NameGDSF, NameTwoQ, NameARC, NameWTinyLFU,
	}
}

// New returns an empty policy of the given name.
func New[K comparable](name string) (Policy[K], error) {
	switch name {
	case NameLRU:
		return NewLRU[K](), nil
	case NameFIFO:
		return NewFIFO[K](), nil
	case NameCLOCK:
		return NewCLOCK[K](), nil
	case NameSIEVE:
		return NewSIEVE[K](), nil
	case NameS3FIFO:
		return NewS3FIFO[K](), nil
	case NameLFU:
		return NewLFU[K](), nil
	case NameGDSF:
		return NewGDSF[K](), nil
	case NameTwoQ:
		return NewTwoQ[K](), nil
	case NameARC:
		return NewARC[K](), nil
	case NameWTinyLFU:
		return NewWTinyLFU[K](), nil
	}
	return nil, fmt.Errorf("unknown eviction policy %q: use one of %s", name, strings.Join(Names(), ", "))
}

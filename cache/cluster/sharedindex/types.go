package sharedindex

import (
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
)

var (
	// ErrAway is the error of calls that Redis did not answer, or would not be asked
	// because it did not answer before. The replica works alone.
	ErrAway = errors.New("the shared index is away")

	// ErrFenced says that the lease or claim of the caller is not its own any
	// more: somebody else went on, or it ran out. Nothing was written.
	ErrFenced = errors.New("the token is not valid any more")

	// ErrWrong says that Redis holds or answered something that makes no sense.
	ErrWrong = errors.New("the shared index has a wrong value")
)

// Key names a content. Verified content is of no origin; other content is of the
// upstream whose word it is.
type Key struct {
	Origin string // printable ASCII without blanks; "" for verified content
	Digest digest.Digest
}

func (k Key) validate() error {
	if err := k.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", k.Digest, err)
	}
	if k.Origin != "" && !validName(k.Origin) {
		return fmt.Errorf("origin %q is too long or not printable", k.Origin)
	}
	return nil
}

// Extent is the bytes of a content from Off up to, but not including, End.
type Extent struct{ Off, End int64 }

// Stored is an object in the shared tier.
type Stored struct {
	Generation uint64 // the token of the claim under which it was stored
	Size       int64  // of the content, in bytes
}

// Lease is the right to fetch an extent from the upstream.
type Lease struct {
	Token uint64
	Extent
}

// Fetching is a lease that somebody has: another replica, or the caller's own.
type Fetching struct {
	Lease
	Replica string
}

// Wanted is what a caller of Locate needs.
type Wanted struct {
	Key
	Extent
	Insist bool   // grant a lease although there are holders or an object: they were tried
	Over   uint64 // token of a lease whose holder was seen failing: it ends; 0: of none
}

// Place is what is known of the byte at Wanted.Off. If there is a live lease of it,
// Fetching is set; else Lease is, if there is nobody else to ask or Wanted.Insist. If
// neither is, there are Holders or Stored; or there is nothing of all that, because too
// much of the content is being fetched already: then the caller fetches what it needs
// without a lease.
type Place struct {
	Lease    *Lease    // granted to the caller, which fetches it from the upstream
	Fetching *Fetching // is being fetched
	Holders  []string  // replicas that have it, not the caller, most recent first, at most MaxHolders
	Stored   *Stored   // in the shared tier
}

package chunks

import (
	"fmt"

	"github.com/opencontainers/go-digest"
)

// Ref says where the chunk table of a blob lies and what it has to hash to. The
// zero value means that there is none.
type Ref struct {
	// Root is the root digest of the table, SHA-256.
	Root digest.Digest
	// Offset and Size are where the table lies, in bytes: in the blob that
	// it covers, or, with Offset 0, in a blob of its own (a detached table).
	Offset, Size int64
}

// IsZero reports whether r names no table.
func (r Ref) IsZero() bool { return r == Ref{} }

// Detached reports whether the table lies in a blob of its own. A table within
// the blob that it covers can not start at 0.
func (r Ref) Detached() bool { return r.Offset == 0 }

// Validate reports whether r can be right for a table in a blob of at most size
// bytes, which is the blob that it covers or that of the detached table.
func (r Ref) Validate(size int64) error {
	if err := r.Root.Validate(); err != nil {
		return fmt.Errorf("root digest %q of the chunk table: %w", r.Root, err)
	}
	switch {
	case r.Root.Algorithm() != digest.SHA256:
		return fmt.Errorf("root digest %s of the chunk table is not SHA-256", r.Root)
	case r.Size < HeaderSize:
		return fmt.Errorf("chunk table of %d bytes is shorter than its header", r.Size)
	case r.Offset < 0 || r.Offset > size || r.Size > size-r.Offset:
		return fmt.Errorf("chunk table of %d bytes at offset %d does not lie in a blob of %d", r.Size, r.Offset, size)
	case r.Offset%tarBlock != 0:
		return fmt.Errorf("chunk table at offset %d is no tar member: not a multiple of %d", r.Offset, tarBlock)
	}
	return nil
}

// maxBehind is how many bytes may lie behind a table: the end of a tar archive, in
// records of whatever size tar uses.
const maxBehind = 64 << 10

// ValidateIn reports whether r can be right for a table in a blob of exactly
// size bytes, as Validate does for one of at most so many, and whether it leaves
// little of that unchecked: nobody verifies what lies behind the table.
func (r Ref) ValidateIn(size int64) error {
	if err := r.Validate(size); err != nil {
		return err
	}
	if behind := size - r.Offset - r.Size; behind > maxBehind {
		return fmt.Errorf("%d bytes lie behind its chunk table, which nothing would check; %d may", behind, maxBehind)
	}
	return nil
}

// Covered returns how many bytes the table has to cover if r is that of a blob
// of size bytes: everything up to the table's tar header.
func (r Ref) Covered(size int64) int64 {
	if r.Detached() {
		return size
	}
	return r.Offset - tarBlock
}

// tarBlock is the size of a tar header, and what members are aligned to.
const tarBlock = 512

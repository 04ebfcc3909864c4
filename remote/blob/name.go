package blob

import "fmt"

// Name returns what error messages call r: the digest of a Blob that has one,
// what a fmt.Stringer says, else its type and size.
func Name(r ReaderAt) string {
	if b, ok := r.(Blob); ok {
		if d := b.Descriptor().Digest; d != "" {
			return d.String()
		}
	}
	if s, ok := r.(fmt.Stringer); ok {
		return s.String()
	}
	return fmt.Sprintf("%T of %d bytes", r, r.Size())
}

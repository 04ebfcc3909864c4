package content

import (
	"crypto/aes"
	"io"
)

// BodyFrom returns a body that begins with the counter given.
func (m *Maker) BodyFrom(start [aes.BlockSize]byte, size int64) io.ReadSeeker {
	b := &body{maker: m, size: size, start: start}
	b.seek(0)
	return b
}

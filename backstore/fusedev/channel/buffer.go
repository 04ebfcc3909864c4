package channel

const (
	// maxPayloads bounds the writes that are being handled, of all devices
	// together, by the memory for their payloads: 64 MiB. The kernel keeps the
	// writes of a loop device below an eighth of that (package mounter), so that
	// it takes eight of them that are stuck to hold up the others.
	maxPayloads = 256
	// keptPayloads is how many of their buffers are kept when they are not used.
	keptPayloads = 32
)

// newBuffer returns a buffer for requests that is resident where they can come
// to lie: see the package comment.
func newBuffer() []byte {
	const page = 4096
	buf := make([]byte, requestBufferSize)
	for i := 0; i < residentSize; i += page {
		buf[i] = 1
	}
	return buf
}

// payloads lends buffers to readers whose own has a write in it.
type payloads struct {
	kept chan []byte
	lent chan struct{} // has a token for each buffer that there is
}

func newPayloads() *payloads {
	return &payloads{kept: make(chan []byte, keptPayloads), lent: make(chan struct{}, maxPayloads)}
}

// borrow returns a buffer, and waits for one if there are maxPayloads.
func (p *payloads) borrow() []byte {
	select {
	case buf := <-p.kept:
		return buf
	default:
	}
	select {
	case buf := <-p.kept:
		return buf
	case p.lent <- struct{}{}:
		return newBuffer()
	}
}

// giveBack takes a buffer from borrow, or a reader's for which one was borrowed.
func (p *payloads) giveBack(buf []byte) {
	select {
	case p.kept <- buf:
	default:
		<-p.lent
	}
}

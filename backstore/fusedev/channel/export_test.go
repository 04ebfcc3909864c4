package channel

import "syscall"

// MaxWrite is maxWrite.
const MaxWrite = maxWrite

// Parse parses a message as a channel does, up to what a handler gets of it. data
// says that the message is about the bytes of a file.
func Parse(m []byte) (r *Request, data bool, errno syscall.Errno) {
	h, ok := parseHeader(m)
	if !ok || !isData(h.opcode) {
		return nil, false, 0
	}
	r, errno = parseRequest(h, m)
	return r, true, errno
}

package load

import (
	"bytes"
	"encoding/base64"
	"io"
)

// indexType is the media type of what index makes.
const indexType = "application/vnd.oci.image.index.v1+json"

const (
	indexHead = `{"schemaVersion":2,"mediaType":"` + indexType + `","manifests":[],"annotations":{"replayed":"`
	indexTail = `"}}`
	leastPad  = 24 // characters that tell one index from another
)

// index returns an image index of size bytes, or of as few as it can have, that is
// filled from random. It is what is pushed for the manifests of a trace: it lists
// nothing, so that it does not depend on uploads that may still be under way.
func index(size int64, random io.Reader) []byte {
	pad := max(int(size)-len(indexHead)-len(indexTail), leastPad)
	raw := make([]byte, pad)
	n, _ := io.ReadFull(random, raw) // of a smaller size there is less, and the rest is zeros
	clear(raw[n:])
	b := make([]byte, 0, len(indexHead)+base64.URLEncoding.EncodedLen(pad)+len(indexTail))
	b = append(b, indexHead...)
	b = base64.URLEncoding.AppendEncode(b, raw)[:len(indexHead)+pad]
	return append(b, indexTail...)
}

func bytesReader(p []byte) io.Reader { return bytes.NewReader(p) }

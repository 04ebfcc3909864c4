package tracelayer

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// packers are made at first use: each takes some memory, and most programs need
// one of them at most. Both may be used in parallel.
var (
	packer = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	})
	unpacker = sync.OnceValues(func() (*zstd.Decoder, error) {
		// Frames of more bytes than their extent has are refused, those
		// that admit it before anything is decoded.
		return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true),
			zstd.WithDecoderMaxMemory(MaxExtent), zstd.WithDecoderMaxWindow(2*MaxExtent))
	})
)

// Pack returns the bytes of an extent as they are to be stored in the data: one
// zstd frame if that is smaller, else p.
func Pack(p []byte) ([]byte, error) {
	enc, err := packer()
	if err != nil {
		return nil, err
	}
	if frame := enc.EncodeAll(p, nil); len(frame) < len(p) {
		return frame, nil
	}
	return p, nil
}

// Unpack returns the bytes of e, given the Stored bytes that the data have of
// it. They are not compared with e.Sum. The result may be stored.
func (e Extent) Unpack(stored []byte) ([]byte, error) {
	switch {
	case int64(len(stored)) != e.Stored || e.Stored == 0:
		return nil, fmt.Errorf("unpacking extent: %d bytes of %d stored", len(stored), e.Stored)
	case e.Stored == e.Size:
		return stored, nil
	}
	dec, err := unpacker()
	if err != nil {
		return nil, err
	}
	p, err := dec.DecodeAll(stored, make([]byte, 0, e.Size))
	if err == nil && int64(len(p)) != e.Size {
		err = fmt.Errorf("%d bytes, not %d", len(p), e.Size)
	}
	if err != nil {
		return nil, fmt.Errorf("unpacking extent: %w", err)
	}
	return p, nil
}

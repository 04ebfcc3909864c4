// Package blobtest tests implementations of blob.Blob and those who use them:
// a conformance suite, a blob in memory and one that fails by script.
package blobtest

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
)

type memory struct {
	data []byte
	desc ocispec.Descriptor
}

// Bytes returns a Blob of data, which it keeps, with the right digest.
func Bytes(data []byte) blob.Blob {
	return &memory{data: data, desc: ocispec.Descriptor{
		MediaType: "application/octet-stream",
		Digest:    digest.FromBytes(data),
		Size:      int64(len(data)),
	}}
}

func (m *memory) Size() int64 { return m.desc.Size }

func (m *memory) Descriptor() ocispec.Descriptor { return m.desc }

func (m *memory) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	switch {
	case off < 0:
		return 0, errors.New("negative offset")
	case len(p) == 0:
		return 0, nil
	case off >= m.desc.Size:
		return 0, io.EOF
	}
	n := copy(p, m.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

package lsmt

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
)

// CreateUpper makes the files of a writable layer that holds nothing, and
// makes them durable. It overwrites nothing, and leaves nothing if it fails.
func CreateUpper(files UpperFiles, opts UpperOptions) error {
	if err := createUpper(files, opts); err != nil {
		return fmt.Errorf("creating writable layer %s: %w", files.Data, err)
	}
	return nil
}

func createUpper(files UpperFiles, opts UpperOptions) error {
	if opts.UUID == "" {
		opts.UUID = randomUUID()
	}
	id, err := opts.canonical()
	if err != nil {
		return err
	}
	data, index, length := header{Identity: id, flags: flagHeader | flagData}, []byte(nil), int64(HeaderSize)
	if opts.Sparse {
		if id.VirtualSize == 0 {
			return errors.New("a sparse layer needs a virtual size")
		}
		data.flags |= flagSparse
		length += id.VirtualSize
	} else {
		h := header{Identity: id, flags: flagHeader, indexOffset: HeaderSize}
		index = h.encode()
	}
	if err := createFile(files.Data, data.encode(), length); err != nil {
		return err
	}
	err = createFile(files.Index, index, int64(len(index)))
	if err != nil {
		os.Remove(files.Data)
		return err
	}
	err = syncDir(files.Data)
	if err == nil {
		err = syncDir(files.Index)
	}
	if err != nil {
		os.Remove(files.Data)
		os.Remove(files.Index)
	}
	return err
}

// createFile makes a durable file of length bytes that starts with p.
func createFile(path string, p []byte, length int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(p); err == nil && length > int64(len(p)) {
		err = f.Truncate(length)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}

// randomUUID returns a random UUID, version 4.
func randomUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%X-%X-%X-%X-%X", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

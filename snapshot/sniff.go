package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// First bytes of the two forms an overlaybd layer can have inside its tar.
var (
	magicLSMT  = []byte("LSMT\x00\x01\x02\x00")
	magicZFile = []byte("ZFile\x00\x01\x00")
)

// chunkTable is the second member of the tar of a layer, if it has one.
const chunkTable = "overlaybd.chunks"

// holdsLayer returns nil if dir has an overlaybd layer in it. Only the first
// bytes are looked at; the rest is checked when it is read.
func holdsLayer(dir string) error {
	path := layerFile(dir)
	if path == "" {
		return fmt.Errorf("it holds no file %s", layerFiles[0])
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 2048)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	if !IsLayer(head[:n]) {
		return fmt.Errorf("its file %s is neither LSMT nor ZFile", layerFiles[0])
	}
	return nil
}

// onlyLayer reports whether dir has an overlaybd layer and nothing else in it.
func onlyLayer(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if e.Name() != chunkTable && !slices.Contains(layerFiles, e.Name()) {
			return false
		}
	}
	return holdsLayer(dir) == nil
}

// IsLayer recognises a layer by its first bytes, bare or in a tar: there the
// payload is behind one header, or behind a pax header, its data and a header.
func IsLayer(head []byte) bool {
	const block, typeflag, magic, version = 512, 156, 257, 263
	if len(head) >= block && string(head[magic:magic+5]) == "ustar" && string(head[version:version+2]) == "00" {
		payload := block
		if head[typeflag] == 'x' {
			payload = 3 * block
		}
		head = head[min(payload, len(head)):]
	}
	return bytes.HasPrefix(head, magicLSMT) || bytes.HasPrefix(head, magicZFile)
}

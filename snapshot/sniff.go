package snapshot

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/reprise-containers/reprise/tracelayer"
)

// First bytes of the two forms an overlaybd layer can have inside its tar.
var (
	magicLSMT  = []byte("LSMT\x00\x01\x02\x00")
	magicZFile = []byte("ZFile\x00\x01\x00")
)

// First bytes of a trace file, and of a plan.
var (
	magicTrace = []byte("\x20\x18\xEF\xC2")
	magicPlan  = []byte("reprise.plan")
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
	head, err := firstBytes(path, 2048)
	if err != nil {
		return err
	}
	if !IsLayer(head) {
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

// onlyTrace reports whether dir has an unpacked trace layer and nothing else in it,
// with a trace or a plan that is one: a slot alone may be any file of that name.
func onlyTrace(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil || !isTrace(dir) {
		return false
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !slices.Contains([]string{tracelayer.SlotName, tracelayer.PlanName, tracelayer.DataName}, e.Name()) {
			return false
		}
	}
	begins := func(name string, magic []byte) bool {
		head, err := firstBytes(filepath.Join(dir, name), len(magic))
		return err == nil && bytes.Equal(head, magic)
	}
	return begins(tracelayer.SlotName, magicTrace) || begins(tracelayer.PlanName, magicPlan)
}

// firstBytes returns the first n bytes of a file, or all if it has fewer.
func firstBytes(path string, n int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(n)))
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

package tier

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// version is the first part of all names, and changes when names or frames do.
const version = "v1/"

// folderOf returns the folder of a blob's generations.
func folderOf(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("digest %q: %w", d, err)
	}
	hex := d.Encoded()
	return version + d.Algorithm().String() + "/" + hex[:2] + "/" + hex + "/", nil
}

// nameOf returns the name of a generation.
func nameOf(d digest.Digest, generation uint64) (string, error) {
	folder, err := folderOf(d)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s%016x", folder, generation), nil
}

// parseName is the reverse of nameOf; ok is false for what nameOf does not return.
func parseName(name string) (d digest.Digest, generation uint64, ok bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 5 {
		return "", 0, false
	}
	generation, err := strconv.ParseUint(parts[4], 16, 64)
	if err != nil {
		return "", 0, false
	}
	d = digest.NewDigestFromEncoded(digest.Algorithm(parts[1]), parts[3])
	again, err := nameOf(d, generation)
	return d, generation, err == nil && again == name
}

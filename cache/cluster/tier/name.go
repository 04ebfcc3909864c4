package tier

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

const (
	// version is the beginning of all names, and changes when names or frames do.
	version = "v1-"
	// keyIDSize is how much of what a secret is told by is in names, in bytes.
	keyIDSize = 4
)

// names are those of the objects of one secret: the folder that they are in, with a
// slash at its end.
type names string

func namesOf(secret []byte) (names, error) {
	id, err := hkdf.Key(sha256.New, secret, nil, "reprise tier name v1", keyIDSize)
	if err != nil {
		return "", fmt.Errorf("deriving the folder of the shared tier: %w", err)
	}
	return names(version + hex.EncodeToString(id) + "/"), nil
}

// folderOf returns the folder of a blob's generations.
func (n names) folderOf(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("digest %q: %w", d, err)
	}
	hex := d.Encoded()
	return string(n) + d.Algorithm().String() + "/" + hex[:2] + "/" + hex + "/", nil
}

// nameOf returns the name of a generation.
func (n names) nameOf(d digest.Digest, generation uint64) (string, error) {
	folder, err := n.folderOf(d)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s%016x", folder, generation), nil
}

// parse is the reverse of nameOf; ok is false for what nameOf does not return.
func (n names) parse(name string) (d digest.Digest, generation uint64, ok bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 5 {
		return "", 0, false
	}
	generation, err := strconv.ParseUint(parts[4], 16, 64)
	if err != nil {
		return "", 0, false
	}
	d = digest.NewDigestFromEncoded(digest.Algorithm(parts[1]), parts[3])
	again, err := n.nameOf(d, generation)
	return d, generation, err == nil && again == name
}

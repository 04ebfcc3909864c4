package check_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

const vectors = "../../../backstore/testdata/vectors/"

// vector is a damaged file: a base, cut, patched and extended.
type vector struct {
	File     string `json:"file"`
	SHA256   string `json:"sha256"`
	Base     string `json:"base"`
	Truncate *int   `json:"truncate"`
	Patch    []struct {
		At  int    `json:"at"`
		Hex string `json:"hex"`
	} `json:"patch"`
	AppendHex string `json:"append_hex"`
	WholeFile bool   `json:"whole_file"`
}

// corrupt returns the vectors by name.
func corrupt(t *testing.T) []vector {
	t.Helper()
	var doc struct{ Files []vector }
	b, err := os.ReadFile(vectors + "corrupt/PATCHES.json")
	if err == nil {
		err = json.Unmarshal(b, &doc)
	}
	if err != nil {
		t.Fatal(err)
	}
	return doc.Files
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// bytes returns the damaged file, checked against its sum.
func (v vector) bytes(t *testing.T) []byte {
	t.Helper()
	name := v.Base
	if v.WholeFile {
		name = "corrupt/" + v.File
	}
	b := readFile(t, name)
	if !v.WholeFile {
		if v.Truncate != nil {
			b = b[:*v.Truncate]
		}
		for _, p := range v.Patch {
			b = slices.Replace(b, p.At, p.At+len(p.Hex)/2, unhex(t, p.Hex)...)
		}
		b = append(b, unhex(t, v.AppendHex)...)
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != v.SHA256 {
		t.Fatalf("%s: made %x, want %s", v.File, sum, v.SHA256)
	}
	return b
}

// intact returns the digest the file had before the damage.
func (v vector) intact(t *testing.T) digest.Digest {
	t.Helper()
	return digest.FromBytes(readFile(t, v.Base))
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(vectors, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

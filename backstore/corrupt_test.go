package backstore_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
)

// patched is a damaged file as PATCHES.json gives it.
type patched struct {
	File     string `json:"file"`
	SHA256   string `json:"sha256"`
	Base     string `json:"base"`
	Truncate *int   `json:"truncate"`
	Patch    []struct {
		At  int    `json:"at"`
		Hex string `json:"hex"`
	} `json:"patch"`
	Append string `json:"append_hex"`
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// build returns the damaged file.
func (p patched) build(t testing.TB) []byte {
	t.Helper()
	if p.Base == "" {
		return readFile(t, vectors, "corrupt", p.File)
	}
	b := readFile(t, vectors, p.Base)
	if p.Truncate != nil {
		b = b[:*p.Truncate]
	}
	for _, patch := range p.Patch {
		copy(b[patch.At:], unhex(t, patch.Hex))
	}
	return append(b, unhex(t, p.Append)...)
}

// corruptFiles returns all damaged files by name.
func corruptFiles(t testing.TB) map[string][]byte {
	t.Helper()
	var list struct {
		Files []patched `json:"files"`
	}
	readJSON(t, &list, vectors, "corrupt/PATCHES.json")
	files := make(map[string][]byte, len(list.Files))
	for _, p := range list.Files {
		files[p.File] = p.build(t)
		if sum(files[p.File]) != p.SHA256 {
			t.Fatalf("%s was not built right", p.File)
		}
	}
	return files
}

const (
	intact  = "opens and reads right"
	damaged = "opens, and reads fail in the damaged block only"
	silent  = "opens and reads wrong, as upstream: nothing in the format can tell"
)

// verdicts say what becomes of each damaged file: one of the above, or the rule
// that the error of OpenLayer names.
var verdicts = map[string]string{
	"lsmt-trunc-trailer.lsmt":         "trailer at offset 83456: wrong magic",
	"lsmt-trunc-half.lsmt":            "trailer at offset 41472: wrong magic",
	"lsmt-trunc-100.lsmt":             "100 bytes are less than header and trailer",
	"lsmt-empty.lsmt":                 "0 bytes are less than header and trailer",
	"lsmt-bad-magic0-header.lsmt":     "not an LSMT layer: wrong magic",
	"lsmt-bad-magic1-header.lsmt":     "not an LSMT layer: wrong magic",
	"lsmt-bad-magic-trailer.lsmt":     "trailer at offset 87552: wrong magic",
	"lsmt-bad-index-offset-huge.lsmt": "ends after it",
	"lsmt-bad-index-offset-512.lsmt":  "are not within 8 and 162",
	"lsmt-bad-index-offset-0.lsmt":    "length at sector 564050879402828 is 0",
	"lsmt-bad-index-size.lsmt":        "ends after it",
	"lsmt-index-size-1e6+1.lsmt":      "index of 1000001 records exceeds the limit of 1000000",
	"lsmt-trailer-not-sealed.lsmt":    "not those of a sealed data file's trailer",
	"lsmt-header-flag-trailer.lsmt":   "not those of a data file's header",
	"lsmt-trailing-512.lsmt":          "trailer at offset 88064: wrong magic",

	"lsmt-index-moffset-out-of-range.lsmt": "record 0: mapped sectors 163 to 291 are not within 8 and 163",
	"lsmt-index-moffset-zero.lsmt":         "record 0: mapped sectors 0 to 128 are not within 8 and 163",
	"lsmt-index-disordered.lsmt":           "record 1: sector 64 does not lie after sector 280",
	"lsmt-index-overlap.lsmt":              "record 1: sector 272 does not lie after sector 280",
	"lsmt-index-zero-length.lsmt":          "record 0: length at sector 64 is 0",
	"lsmt-index-beyond-vsize.lsmt":         intact,
	"lsmt-index-tag7.lsmt":                 intact,
	"lsmt-version2.lsmt":                   intact,
	"lsmt-bitflip-data.lsmt":               silent,

	"lz4-crc-bitflip-block5.zfile":    damaged,
	"lz4-crc-bitflip-crc5.zfile":      damaged,
	"zstd-crc-bitflip-block5.zfile":   damaged,
	"lz4-nocrc-bitflip-block5.zfile":  silent,
	"zstd-nocrc-bitflip-block5.zfile": silent,
	"lz4-crc-bitflip-block0.zfile":    "block 0 (",
	"zstd-crc-bitflip-block0.zfile":   "block 0 (",
	"lz4-nocrc-bitflip-block0.zfile":  "wrong magic",
	"zstd-nocrc-bitflip-block0.zfile": "block 0 (",

	"zfile-bad-magic.zfile":                     "not an LSMT layer: wrong magic",
	"zfile-bad-digest.zfile":                    "header: digest is",
	"zfile-bad-index-offset.zfile":              "header: digest is",
	"zfile-bad-index-offset-redigest.zfile":     "stored length 549085737 of block 0",
	"zfile-bad-index-offset-eof-redigest.zfile": "the room in the blob",
	"zfile-index-entry-flip.zfile":              "checksum is",
	"zfile-index-entry-minus1-recrc.zfile":      "not where the table starts",
	"zfile-index-entry-4-recrc.zfile":           "stored length 4 of block 5 is not within 5 and 4256",
	"zfile-index-entry-70000-recrc.zfile":       "stored length 70000 of block 5 is not within 5 and 4256",
	"zfile-trunc-trailer-overwritten.zfile":     intact,
	"zfile-trunc-index-overwritten.zfile":       "the room in the blob",
	"zfile-trunc-half.zfile":                    "the room in the blob",
	"zfile-isz-huge-redigest.zfile":             "jump table of 1000000001 entries exceeds the limit of 1000000000",
	// Upstream opens the next three and fails only later, in LSMT.
	"zfile-osz-bigger-redigest.zfile":  "95744 bytes need 24 blocks of 4096, jump table has 23",
	"zfile-osz-smaller-redigest.zfile": "87552 bytes need 22 blocks of 4096, jump table has 23",
	"zfile-bs-8k-redigest.zfile":       "91648 bytes need 12 blocks of 8192, jump table has 23",
	// Upstream crashes.
	"zfile-algo9-redigest.zfile":            "unknown compression algorithm 9",
	"zfile-algo-zstd-redigest.zfile":        "decompressing zstd",
	"zfile-noverify-flag-redigest.zfile":    "decompressing lz4",
	"zfile-nodigest-flag.zfile":             intact,
	"zfile-reserved-nonzero-redigest.zfile": intact,
	"zfile-trunc-trailer-form.zfile":        "trailer at offset 39417: wrong magic",
	"zfile-trailer-bad-magic.zfile":         "trailer at offset 39929: wrong magic",
	// Upstream never checks the digest of a trailer, though it sets the flag
	// that says there is one. A blob that breaks it is not what was written.
	"zfile-trailer-digest-flip.zfile":        "trailer at offset 39929: digest is",
	"zfile-trailer-form-trailing-junk.zfile": "wrong magic",
	"zfile-header-form-trailing-junk.zfile":  intact,

	"tar-bad-checksum.tar":         "not an LSMT layer: wrong magic",
	"tar-bad-magic.tar":            "not an LSMT layer: wrong magic",
	"tar-trunc-600.tar":            "tar header is cut off",
	"tar-second-header-broken.tar": intact,
	"tar-other-name.tar":           intact,
	"tar-plain-ustar.tar":          intact,
	"tar-gnu.tar":                  "not an LSMT layer: wrong magic",
	"tar-pax-long.tar":             "want at most 512",
	"tar-second-entry.tar":         "not an LSMT layer",
}

// TestCorrupt opens all damaged files.
func TestCorrupt(t *testing.T) {
	var results []struct {
		File string `json:"file"`
		CPP  string `json:"cpp"`
	}
	readJSON(t, &results, vectors, "corrupt/RESULTS.json")
	files := corruptFiles(t)
	if len(files) != len(results) || len(verdicts) != len(results) {
		t.Errorf("%d files, %d verdicts, %d results of upstream", len(files), len(verdicts), len(results))
	}
	stack, err := backstore.Open(t.Context(), []blob.ReaderAt{vector(t, "small-chain3/L1.raw.lsmt")})
	if err != nil {
		t.Fatal(err)
	}
	want := readAll(t, stack)
	for _, r := range results {
		t.Run(r.File, func(t *testing.T) {
			checkCorrupt(t, memory(files[r.File]), verdicts[r.File], r.CPP, want)
		})
	}
}

func checkCorrupt(t *testing.T, b memory, verdict, upstream string, want []byte) {
	t.Helper()
	image, err := backstore.Open(t.Context(), []blob.ReaderAt{b})
	if err != nil {
		if verdict == intact || verdict == damaged || verdict == silent || verdict == "" || !strings.Contains(err.Error(), verdict) {
			t.Errorf("error %q, want %q", err, verdict)
		}
		return
	}
	if strings.Contains(upstream, "opened=False") || strings.Contains(upstream, "lsmt_open=False") {
		t.Error("opened what upstream refuses")
	}
	switch verdict {
	case intact:
		if got := readAll(t, image); sum(got) != sum(want) {
			t.Error("content differs")
		}
	case silent:
		if got := readAll(t, image); !strings.Contains(upstream, "sha256="+sum(got)[:16]) {
			t.Errorf("content has sha256 %s, upstream: %s", sum(got), upstream)
		}
	case damaged:
		checkDamaged(t, image, want)
	default:
		t.Errorf("opened, want error %q", verdict)
	}
}

// checkDamaged reads every 4 KiB: those that upstream could not read either
// must fail, all others be right.
func checkDamaged(t *testing.T, image *lsmt.Image, want []byte) {
	t.Helper()
	p := make([]byte, 4096)
	var bad []int
	for off := 0; off < len(want); off += len(p) {
		if _, err := image.ReadAt(t.Context(), p, int64(off)); err != nil {
			if !strings.Contains(err.Error(), "block 5 (") || !strings.Contains(err.Error(), "is damaged: checksum is") {
				t.Errorf("reading at %d: %v", off, err)
			}
			bad = append(bad, off)
		} else if sum(p) != sum(want[off:off+len(p)]) {
			t.Errorf("wrong content at %d", off)
		}
	}
	if len(bad) != 1 || bad[0] != 49152 {
		t.Errorf("reads failed at %v, want 49152", bad)
	}
}

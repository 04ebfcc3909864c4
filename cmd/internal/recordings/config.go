package recordings

import (
	"strings"
	"time"

	"github.com/distribution/reference"
)

// Config says what is recorded, and how much.
type Config struct {
	// Dir takes the recordings that nobody named a file for, each repository's
	// in a directory of its own.
	Dir string
	// Images are patterns of the references of images that are recorded
	// without being asked; "*" in them is any text.
	Images []string
	// ByLabel lets containers ask for it.
	ByLabel bool
	// Paths are directories below which, and below Dir, are the files that
	// containers may name.
	Paths []string
	// Time is how long a recording to Dir lasts, at most, and LabelTime one to
	// a file that a container named.
	Time, LabelTime time.Duration
	// PlanTime is how long making a plan may take; then the trace is written
	// without one.
	PlanTime time.Duration
	// Keep is how many recordings of one repository are in Dir before no more
	// are made there.
	Keep int
	// Records bounds each recording: 24 bytes of memory each.
	Records int
	// Parallel is how many there may be at once.
	Parallel int
}

// matches reports whether ref is an image that pattern means, as it stands or
// in full ("redis:7" is "docker.io/library/redis:7").
func matches(pattern, ref string) bool {
	if glob(pattern, ref) {
		return true
	}
	named, err := reference.ParseNormalizedNamed(ref)
	return err == nil && glob(pattern, named.String())
}

// glob reports whether text is what pattern means, in which "*" is any text,
// slashes and colons included.
func glob(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	text, ok := strings.CutPrefix(text, parts[0])
	if !ok {
		return false
	}
	last := parts[len(parts)-1]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return strings.HasSuffix(text, last)
}

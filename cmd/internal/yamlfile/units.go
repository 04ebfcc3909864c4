package yamlfile

import (
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Size is a number of bytes: "1TB" is 10^12, "512GiB" 512 times 2^30. The B may
// be left out.
type Size int64

var sizeForm = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) *(?:([kKMGTP])(i?))?B?$`)

// ParseSize parses a Size.
func ParseSize(text string) (Size, error) {
	m := sizeForm.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%q is not a size; write it as 1TB or 512GiB", text)
	}
	n, _ := new(big.Rat).SetString(m[1])
	unit := int64(1)
	if m[2] != "" {
		base := int64(1000)
		if m[3] != "" {
			base = 1024
		}
		for range strings.Index("KMGTP", strings.ToUpper(m[2])) + 1 {
			unit *= base
		}
	}
	n.Mul(n, new(big.Rat).SetInt64(unit))
	whole := new(big.Int).Quo(n.Num(), n.Denom())
	if !whole.IsInt64() {
		return 0, fmt.Errorf("%q is too large a size", text)
	}
	return Size(whole.Int64()), nil
}

// String returns the size in the largest unit that it is a multiple of.
func (s Size) String() string {
	best, unit := int64(1), "B"
	for _, base := range []struct {
		n    int64
		mark string
	}{{1000, "B"}, {1024, "iB"}} {
		n := int64(1)
		for _, letter := range "kMGTP" {
			n *= base.n
			name := string(letter) + base.mark
			if base.n == 1024 {
				name = strings.ToUpper(string(letter)) + base.mark
			}
			if int64(s)%n == 0 && n > best && s != 0 {
				best, unit = n, name
			}
		}
	}
	return strconv.FormatInt(int64(s)/best, 10) + unit
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *Size) UnmarshalYAML(n *yaml.Node) error {
	return scalar(n, s, ParseSize)
}

// MarshalYAML implements yaml.Marshaler.
func (s Size) MarshalYAML() (any, error) { return s.String(), nil }

// Duration is a span of time, written as Go does: "30s", "1m30s".
type Duration time.Duration

// ParseDuration parses a Duration, which is never negative.
func ParseDuration(text string) (Duration, error) {
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		return 0, fmt.Errorf("%q is not a duration; write it as 30s, 20m or 1h", text)
	}
	return Duration(v), nil
}

// String returns the duration without parts that are zero.
func (d Duration) String() string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	return scalar(n, d, ParseDuration)
}

// MarshalYAML implements yaml.Marshaler.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// scalar parses the text of a node. Its error is one to which the decoder adds
// those of other nodes.
func scalar[T any](n *yaml.Node, to *T, parse func(string) (T, error)) error {
	if n.Kind != yaml.ScalarNode {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: not a single value", n.Line)}}
	}
	v, err := parse(n.Value)
	if err != nil {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %v", n.Line, err)}}
	}
	*to = v
	return nil
}

// Std returns the duration as the standard library's.
func (d Duration) Std() time.Duration { return time.Duration(d) }

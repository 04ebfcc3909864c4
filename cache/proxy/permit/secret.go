package permit

import (
	"fmt"
	"log/slog"
)

// Secret is the value of an Authorization header. It prints as if it were none;
// string(s) is what it is. Two ways to write one go past its methods and are not to
// be used: fmt does not see those of fields that are not exported, and JSON not those
// of the keys of a map.
type Secret string

const redacted = "[redacted]"

// String implements fmt.Stringer.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format implements fmt.Formatter: for every verb.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'q' || verb == 'v' && f.Flag('#') {
		fmt.Fprintf(f, "%q", s.String())
		return
	}
	fmt.Fprint(f, s.String())
}

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler, and with it what JSON, YAML and
// XML write.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

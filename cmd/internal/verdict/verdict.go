// Package verdict collects what is wrong with a configuration, each value with its
// key.
package verdict

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// Verdict is what is wrong. The zero value is that nothing is.
type Verdict []error

// Check adds an error unless ok.
func (v *Verdict) Check(ok bool, format string, args ...any) {
	if !ok {
		*v = append(*v, fmt.Errorf(format, args...))
	}
}

// OneOf adds an error unless the value is a legal one.
func (v *Verdict) OneOf(key, value string, legal ...string) {
	v.Check(slices.Contains(legal, value), "%s = %q: must be one of %s", key, value, strings.Join(legal, ", "))
}

// Address adds an error unless the value is host:port.
func (v *Verdict) Address(key, value string) {
	_, _, err := net.SplitHostPort(value)
	v.Check(err == nil, "%s = %q: must be host:port", key, value)
}

// Err returns all that is wrong as one error, nil if nothing is.
func (v Verdict) Err() error { return errors.Join(v...) }

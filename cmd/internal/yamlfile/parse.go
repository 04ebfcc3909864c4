// Package yamlfile reads and prints configuration files: YAML into structs whose
// fields have yaml and comment tags. A key that is not known is an error that names
// its line, so that a misspelt limit is not silently without effect.
package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Load reads the file at path over the defaults and validates the result.
func Load[T interface{ Validate() error }](path string, defaults T) (T, error) {
	var none T
	text, err := os.ReadFile(path)
	if err != nil {
		return none, fmt.Errorf("reading configuration: %w", err)
	}
	if err := Parse(text, &defaults); err != nil {
		return none, fmt.Errorf("parsing %s: %w", path, err)
	}
	if err := defaults.Validate(); err != nil {
		return none, fmt.Errorf("checking %s: %w", path, err)
	}
	return defaults, nil
}

// Parse reads text into c, a pointer to a struct that has the defaults. Errors name
// lines, and keys in full.
func Parse(text []byte, c any) error {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var root yaml.Node
	switch err := d.Decode(&root); {
	case errors.Is(err, io.EOF):
		return nil // nothing but comments
	case err != nil:
		return plain(err)
	}
	if err := d.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errDocuments
		}
		return plain(err)
	}
	if err := errors.Join(unknown(&root, reflect.TypeOf(c).Elem(), "")...); err != nil {
		return err
	}
	if err := root.Decode(c); err != nil {
		return named(plain(err), &root)
	}
	return nil
}

// named adds the key to errors that name a line only.
func named(err error, root *yaml.Node) error {
	all, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // plain made it
	if !ok {
		return err
	}
	var errs []error
	for _, e := range all.Unwrap() {
		var line int
		if _, no := fmt.Sscanf(e.Error(), "line %d: ", &line); no == nil {
			if key := keyAt(root, line, ""); key != "" {
				_, text, _ := strings.Cut(e.Error(), ": ")
				e = fmt.Errorf("line %d: %s: %s", line, key, text)
			}
		}
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

// keyAt returns the key, in full, whose value begins in a line, the innermost one if
// there are several, and "" if there is none.
func keyAt(n *yaml.Node, line int, key string) string {
	found := ""
	if n.Line == line && n.Kind != yaml.DocumentNode {
		found = key
	}
	for i, item := range n.Content {
		below := key
		if n.Kind == yaml.MappingNode {
			if i%2 == 0 {
				continue // a name
			}
			below = strings.TrimPrefix(key+"."+n.Content[i-1].Value, ".")
		}
		// In {a: 1, b: 2} nothing tells which of them it is.
		if k := keyAt(item, line, below); k != "" {
			if found != "" && found != key {
				return key
			}
			found = k
		}
	}
	return found
}

var errDocuments = errors.New("there is more than one document")

// plain takes the name of the library off its errors.
func plain(err error) error {
	if e, ok := errors.AsType[*yaml.TypeError](err); ok {
		var errs []error
		for _, text := range e.Errors {
			errs = append(errs, errors.New(text))
		}
		return errors.Join(errs...)
	}
	return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
}

// unknown returns an error for each key below n that t, what n is decoded into,
// does not have. Wrong kinds of values are left to the decoder.
func unknown(n *yaml.Node, t reflect.Type, key string) (errs []error) {
	switch n.Kind {
	case yaml.DocumentNode, yaml.SequenceNode:
		if n.Kind == yaml.SequenceNode {
			if t.Kind() != reflect.Slice {
				return nil
			}
			t = t.Elem()
		}
		for _, item := range n.Content {
			errs = append(errs, unknown(item, t, key)...)
		}
	case yaml.AliasNode:
		return []error{fmt.Errorf("line %d: aliases are not understood", n.Line)}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			name, value := n.Content[i], n.Content[i+1]
			full := strings.TrimPrefix(key+"."+name.Value, ".")
			to, ok := child(t, name.Value)
			if !ok {
				errs = append(errs, fmt.Errorf("line %d: unknown key %q", name.Line, full))
				continue
			}
			errs = append(errs, unknown(value, to, full)...)
		}
	}
	return errs
}

// child returns the type of what is under a key of t.
func child(t reflect.Type, key string) (reflect.Type, bool) {
	switch t.Kind() {
	case reflect.Map:
		return t.Elem(), true
	case reflect.Struct:
		for f := range fields(t) {
			if f.name == key {
				return f.Type, true
			}
		}
		return nil, false
	}
	return t, true // which is not a mapping: the decoder will say so
}

// field is a key of the configuration.
type field struct {
	reflect.StructField
	name string // in YAML
}

// fields yields the keys of a struct, those of inlined ones included.
func fields(t reflect.Type) func(yield func(field) bool) {
	return func(yield func(field) bool) {
		for _, f := range reflect.VisibleFields(t) {
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if name != "" && !yield(field{f, name}) {
				return
			}
		}
	}
}

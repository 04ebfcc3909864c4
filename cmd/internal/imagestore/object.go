package imagestore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
)

// Object is a JSON document of which some fields are changed: the others, known
// or not, stay as they are.
type Object map[string]json.RawMessage

// ParseObject parses a document.
func ParseObject(text []byte) (Object, error) {
	var o Object
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, err
	}
	if o == nil { // null
		o = Object{}
	}
	return o, nil
}

// Set gives a field the value v. What Go's parser, which most readers use, would
// take for the same field goes: other cases of its name.
func (o Object) Set(key string, v any) error {
	text, err := Encode(v)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", key, err)
	}
	maps.DeleteFunc(o, func(k string, _ json.RawMessage) bool { return strings.EqualFold(k, key) })
	o[key] = text
	return nil
}

// Get parses a field into v, which stays as it is if there is none. As Go's parser
// does, it takes another case of the name if there is no better one.
func (o Object) Get(key string, v any) error {
	text, found := o[key]
	for k, other := range o {
		if !found && strings.EqualFold(k, key) {
			text = other
		}
	}
	if text == nil {
		return nil
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("parsing %s: %w", key, err)
	}
	return nil
}

// Encode returns the JSON text of v: no spaces, keys in the order of the type or
// sorted, and no characters escaped for HTML.
func Encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

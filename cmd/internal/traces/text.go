package traces

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// text is a JSON document that is changed in places, so that everything else
// stays as it is, byte by byte: what is not understood, the order of keys and
// white space.
type text struct {
	bytes []byte
	edits []edit
}

// edit puts something else in the place of bytes [from, to).
type edit struct {
	from, to int
	with     string
}

// value is where a JSON value lies: in bytes [from, to). If it is a member of an
// object, its name begins at byte key.
type value struct{ from, to, key int }

// whole returns the document as a value.
func (t *text) whole() value { return value{to: len(t.bytes)} }

// object returns the members of an object. Of members with equal names it is
// the last, which is the one that Go's parser takes, too.
func (t *text) object(at value) (map[string]value, error) {
	all := map[string]value{}
	err := t.walk(at, '{', func(name string, v value) { all[name] = v })
	return all, err
}

// array returns the elements of an array.
func (t *text) array(at value) ([]value, error) {
	var all []value
	err := t.walk(at, '[', func(_ string, v value) { all = append(all, v) })
	return all, err
}

// walk calls each for what is in an object or array.
func (t *text) walk(at value, open json.Delim, each func(name string, v value)) error {
	if at == (value{}) {
		return errTwice // or it would be there
	}
	d := json.NewDecoder(bytes.NewReader(t.bytes[at.from:at.to]))
	start, err := d.Token()
	if err != nil {
		return err
	}
	if start != open {
		return fmt.Errorf("%v where %v should be", start, open)
	}
	for d.More() {
		name, key := "", 0
		if open == '{' {
			key = at.from + int(d.InputOffset())
			key += bytes.IndexByte(t.bytes[key:], '"')
			k, err := d.Token()
			if err != nil {
				return err
			}
			name, _ = k.(string) // a decoder returns nothing else here
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		end := at.from + int(d.InputOffset())
		each(name, value{end - len(raw), end, key})
	}
	_, err = d.Token()
	return err
}

// set replaces a value.
func (t *text) set(at value, with string) {
	t.edits = append(t.edits, edit{at.from, at.to, with})
}

// remove takes elements out of an array, each with a comma.
func (t *text) remove(elements []value, which []int) {
	kept := false
	for i, v := range elements {
		switch {
		case !slices.Contains(which, i):
			kept = true
		case kept:
			t.set(value{from: elements[i-1].to, to: v.to}, "")
		case i+1 < len(elements):
			t.set(value{from: v.from, to: elements[i+1].from}, "")
		default:
			t.set(v, "")
		}
	}
}

// add puts an element behind the others of an array, of which there are some, and
// separates it from them as the last two are.
func (t *text) add(at value, elements int, with string) error {
	all, err := t.array(at)
	if err != nil {
		return err
	}
	n := len(all)
	if n == 0 || n != elements {
		return errTwice
	}
	between := ","
	if n > 1 {
		between = string(t.bytes[all[n-2].to:all[n-1].from])
	}
	t.set(value{from: all[n-1].to, to: all[n-1].to}, between+with)
	return nil
}

// unset takes members out of an object, also those whose names are names in
// another case: Go's parser takes these for the same.
func (t *text) unset(at value, names ...string) error {
	var all []value
	var which []int
	err := t.walk(at, '{', func(name string, v value) {
		if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) }) {
			which = append(which, len(all))
		}
		all = append(all, value{from: v.key, to: v.to})
	})
	t.remove(all, which)
	return err
}

// describe makes a descriptor in the document that of other content with the
// same media type.
func (t *text) describe(at value, d ocispec.Descriptor, content []byte) error {
	members, err := t.object(at)
	if err != nil {
		return err
	}
	for name, with := range map[string]string{
		"digest": strconv.Quote(d.Digest.String()),
		"size":   strconv.FormatInt(d.Size, 10),
		"data":   strconv.Quote(base64.StdEncoding.EncodeToString(content)),
	} {
		v, ok := members[name]
		if !ok && name != "data" {
			return fmt.Errorf("a descriptor without %s", name)
		}
		if ok {
			t.set(v, with)
		}
	}
	return nil
}

// edited returns the document with its changes, none of which touch each other.
func (t *text) edited() []byte {
	slices.SortFunc(t.edits, func(a, b edit) int { return a.from - b.from })
	var out []byte
	at := 0
	for _, e := range t.edits {
		out = append(append(out, t.bytes[at:e.from]...), e.with...)
		at = e.to
	}
	return append(out, t.bytes[at:]...)
}

package yamlfile

import (
	"bytes"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Text returns c, a struct, as a YAML file with the comments of its fields.
func Text(c any) (string, error) {
	var root yaml.Node
	if err := root.Encode(c); err != nil {
		return "", err
	}
	comment(&root, reflect.TypeOf(c))
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&root); err != nil {
		return "", err
	}
	return b.String(), e.Close()
}

// columns is where comments are wrapped.
const columns = 78

// comment puts the comments of t's fields above the keys of n.
func comment(n *yaml.Node, t reflect.Type) {
	if n.Kind != yaml.MappingNode || t.Kind() != reflect.Struct {
		return
	}
	for f := range fields(t) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value != f.name {
				continue
			}
			if text := f.Tag.Get("comment"); text != "" {
				n.Content[i].HeadComment = wrap(text)
			}
			comment(n.Content[i+1], f.Type)
		}
	}
}

// wrap breaks text into lines that begin with a number sign.
func wrap(text string) string {
	var b strings.Builder
	at := 0
	for _, word := range strings.Fields(text) {
		switch {
		case at == 0:
			b.WriteString("#")
			at = 1
		case at+1+len(word) > columns:
			b.WriteString("\n#")
			at = 1
		}
		b.WriteString(" " + word)
		at += 1 + len(word)
	}
	return b.String()
}

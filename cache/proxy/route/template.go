package route

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// template is the Host of a Rule. regexp's own expansion is not used: to it,
// $group1 is a group of that name and nothing where there is none, and $1x is a
// group named "1x".
type template struct {
	parts []part
	open  bool // what clients send may lead to any host
}

// part is a text, or a group of the regular expression if group >= 0.
type part struct {
	text  string
	group int
}

// parseTemplate parses the Host of a rule for re.
func parseTemplate(s string, re *regexp.Regexp) (template, error) {
	var t template
	rest := s
	for rest != "" {
		i := strings.IndexByte(rest, '$')
		if i < 0 {
			i = len(rest)
		}
		if i > 0 {
			t.parts = append(t.parts, part{text: strings.ToLower(rest[:i]), group: -1})
		}
		if rest = rest[i:]; rest == "" {
			break
		}
		name, after, err := cutName(rest)
		if err != nil {
			return template{}, fmt.Errorf("host %q: %w", s, err)
		}
		g, err := groupIndex(name, re)
		if err != nil {
			return template{}, fmt.Errorf("host %q: %w", s, err)
		}
		t.parts = append(t.parts, part{group: g})
		rest = after
	}
	return t, t.check(s)
}

// cutName returns the name of a group after the $ that rest begins with. Without
// braces, what begins as a number ends with its last digit, and so does groupN.
func cutName(rest string) (name, after string, err error) {
	rest = rest[1:]
	if inner, ok := strings.CutPrefix(rest, "{"); ok {
		name, after, ok = strings.Cut(inner, "}")
		if !ok {
			return "", "", fmt.Errorf("${ without }")
		}
		return name, after, nil
	}
	n := len(rest) - len(strings.TrimLeft(strings.TrimPrefix(rest, "group"), digits))
	if n == 0 || n == len("group") && strings.HasPrefix(rest, "group") {
		n = len(rest) - len(strings.TrimLeft(rest, digits+"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"))
	}
	return rest[:n], rest[n:], nil
}

const digits = "0123456789"

func groupIndex(name string, re *regexp.Regexp) (int, error) {
	if i := re.SubexpIndex(name); i >= 0 {
		return i, nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(name, "group"), 10, 16)
	if err != nil {
		return 0, fmt.Errorf("the regular expression has no group $%s", name)
	}
	if int(n) > re.NumSubexp() {
		return 0, fmt.Errorf("group $%s is more than the %d of the regular expression", name, re.NumSubexp())
	}
	return int(n), nil
}

// check says whether the template can become a host, and finds out whether it is
// open: what is fixed at its end is no domain that belongs to somebody.
func (t *template) check(s string) error {
	probe := t.expand(func(int) string { return "a" })
	if _, err := parseHost(probe); err != nil {
		return fmt.Errorf("host %q can not become a host", s)
	}
	if t.literal() {
		return nil
	}
	last := t.parts[len(t.parts)-1]
	tail, _, err := cutPort(last.text)
	_, domain, ok := strings.Cut(tail, ".") // before it a label may go on
	if last.group >= 0 || err != nil || !ok {
		t.open = true
		return nil
	}
	_, err = publicsuffix.EffectiveTLDPlusOne(strings.TrimSuffix(domain, "."))
	t.open = err != nil
	return nil
}

func (t *template) literal() bool {
	for _, p := range t.parts {
		if p.group >= 0 {
			return false
		}
	}
	return true
}

func (t *template) expand(group func(int) string) string {
	var b strings.Builder
	for _, p := range t.parts {
		if p.group >= 0 {
			b.WriteString(group(p.group))
		} else {
			b.WriteString(p.text)
		}
	}
	return b.String()
}

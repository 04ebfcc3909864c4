package route

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// rule is a Rule that was parsed.
type rule struct {
	re     *regexp.Regexp
	host   template
	scheme string
}

// newRule parses a Rule, and returns what about it is likely to be a mistake.
func newRule(r Rule) (rule, []string, error) {
	if r.Regex == "" || r.Host == "" {
		return rule{}, nil, errors.New("needs a regex and a host")
	}
	tree, err := syntax.Parse(r.Regex, syntax.Perl)
	if err != nil {
		return rule{}, nil, err
	}
	// \A and \z hold whatever flags the expression sets for itself.
	re, err := regexp.Compile(`\A(?:` + r.Regex + `)\z`)
	if err != nil {
		return rule{}, nil, err
	}
	scheme, err := parseScheme(r.Scheme)
	if err != nil {
		return rule{}, nil, err
	}
	t, err := parseTemplate(r.Host, re)
	if err != nil {
		return rule{}, nil, err
	}
	return rule{re, t, scheme}, lint(r.Regex, tree), nil
}

// expand returns the host for a client's Host, and whether the rule matches it.
func (r *rule) expand(name string) (host, bool, error) {
	m := r.re.FindStringSubmatchIndex(name)
	if m == nil {
		return host{}, false, nil
	}
	text := r.host.expand(func(i int) string {
		if m[2*i] < 0 {
			return ""
		}
		return name[m[2*i]:m[2*i+1]]
	})
	h, err := parseHost(text)
	if err != nil {
		return host{}, true, err
	}
	if h.addr.IsValid() && !r.host.literal() {
		return host{}, true, fmt.Errorf("%w: %q is an address", ErrBadHost, text)
	}
	return h, true, nil
}

// fixed returns the upstream of a rule that has only one.
func (r *rule) fixed() (Target, bool) {
	if !r.host.literal() {
		return Target{}, false
	}
	h, err := parseHost(r.host.expand(nil))
	return h.target(r.scheme), err == nil
}

// lint looks for the mistakes of the expressions in circulation.
func lint(text string, tree *syntax.Regexp) []string {
	var out []string
	if n := loneDots(tree); n > 0 {
		out = append(out, fmt.Sprintf(`regex %q: %d of its dots match any character: a dot in a name is \.`, text, n))
	}
	if !strings.HasPrefix(text, "^") || !strings.HasSuffix(text, "$") {
		out = append(out, fmt.Sprintf("regex %q is matched against the whole host, as if it were in ^ and $", text))
	}
	return out
}

// loneDots counts the dots that stand for one character.
func loneDots(re *syntax.Regexp) (n int) {
	for _, sub := range re.Sub {
		switch sub.Op {
		case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
			switch re.Op {
			case syntax.OpStar, syntax.OpPlus, syntax.OpQuest, syntax.OpRepeat:
			default:
				n++
			}
		default:
			n += loneDots(sub)
		}
	}
	if len(re.Sub) == 0 && (re.Op == syntax.OpAnyChar || re.Op == syntax.OpAnyCharNotNL) {
		return 1 // the whole of it; below, the parent counts
	}
	return n
}

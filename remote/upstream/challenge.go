package upstream

import (
	"errors"
	"fmt"
	"strings"
)

// challenge is one of a WWW-Authenticate header, RFC 9110 section 11.6.1.
type challenge struct {
	scheme string
	token  string  // token68, instead of params
	params []param // in their order
}

type param struct{ name, value string }

// maxChallenges bounds how many a response may have.
const maxChallenges = 16

var errChallenge = errors.New("it is not formed as RFC 9110 wants it")

// parseChallenges parses the values of WWW-Authenticate headers. What is not formed
// right is an error: what one reader takes for a parameter would be another's
// challenge. Only values without quotes are taken as they are often sent, with what
// belongs in quotes.
func parseChallenges(values []string) ([]challenge, error) {
	var all []challenge
	for _, v := range values {
		p := challengeParser{rest: v}
		for p.skipCommas(); p.rest != ""; p.skipCommas() {
			c, err := p.challenge()
			if err != nil {
				return nil, err
			}
			if all = append(all, c); len(all) > maxChallenges {
				return nil, fmt.Errorf("it is more than %d challenges", maxChallenges)
			}
		}
	}
	return all, nil
}

type challengeParser struct{ rest string }

const blanks = " \t"

func (p *challengeParser) skipBlanks() { p.rest = strings.TrimLeft(p.rest, blanks) }
func (p *challengeParser) skipCommas() { p.rest = strings.TrimLeft(p.rest, blanks+",") }

// ends reports whether an element of the list does.
func (p *challengeParser) ends() bool { return p.rest == "" || p.rest[0] == ',' }

// while takes the characters that is is true for.
func (p *challengeParser) while(is func(byte) bool) string {
	i := 0
	for i < len(p.rest) && is(p.rest[i]) {
		i++
	}
	s := p.rest[:i]
	p.rest = p.rest[i:]
	return s
}

func isTokenChar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isToken68Char(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~+/", c) >= 0
}

// isBareChar is for values without quotes: more than tokens, as addresses are.
func isBareChar(c byte) bool { return c > ' ' && c < 0x7f && c != '"' && c != ',' && c != '\\' }

func (p *challengeParser) challenge() (challenge, error) {
	c := challenge{scheme: p.while(isTokenChar)}
	if c.scheme == "" {
		return c, errChallenge
	}
	if p.skipBlanks(); p.ends() {
		return c, nil
	}
	if token, ok := p.token68(); ok {
		c.token = token
		return c, nil
	}
	for {
		one, err := p.param()
		if err != nil {
			return c, err
		}
		for _, other := range c.params {
			if other.name == one.name {
				return c, fmt.Errorf("it has %s twice", one.name)
			}
		}
		c.params = append(c.params, one)
		if p.skipBlanks(); !p.ends() {
			return c, errChallenge
		}
		p.skipCommas()
		if !p.atParam() {
			return c, nil
		}
	}
}

// token68 takes what is neither a parameter nor a scheme.
func (p *challengeParser) token68() (string, bool) {
	q := challengeParser{p.rest}
	token := q.while(isToken68Char) + q.while(func(c byte) bool { return c == '=' })
	if q.skipBlanks(); token == "" || !q.ends() {
		return "", false
	}
	p.rest = q.rest
	return token, true
}

// atParam reports whether a parameter follows, and not another challenge.
func (p *challengeParser) atParam() bool {
	q := challengeParser{p.rest}
	name := q.while(isTokenChar)
	q.skipBlanks()
	return name != "" && strings.HasPrefix(q.rest, "=")
}

func (p *challengeParser) param() (param, error) {
	name := strings.ToLower(p.while(isTokenChar))
	p.skipBlanks()
	rest, ok := strings.CutPrefix(p.rest, "=")
	if name == "" || !ok {
		return param{}, errChallenge
	}
	p.rest = rest
	p.skipBlanks()
	if strings.HasPrefix(p.rest, `"`) {
		value, err := p.quoted()
		return param{name, value}, err
	}
	value := p.while(isBareChar)
	if value == "" {
		return param{}, errChallenge
	}
	return param{name, value}, nil
}

// quoted takes a quoted-string.
func (p *challengeParser) quoted() (string, error) {
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			return b.String(), nil
		case c == '\\' && i+1 < len(p.rest):
			i++
			if p.rest[i] < ' ' || p.rest[i] == 0x7f {
				return "", errChallenge
			}
			b.WriteByte(p.rest[i])
		case c < ' ' && c != '\t', c == 0x7f, c == '\\':
			return "", errChallenge
		default:
			b.WriteByte(c)
		}
	}
	return "", errChallenge
}

// get returns a parameter.
func (c *challenge) get(name string) (string, bool) {
	for _, p := range c.params {
		if p.name == name {
			return p.value, true
		}
	}
	return "", false
}

var quote = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// String returns the challenge as everybody reads it in the same way.
func (c *challenge) String() string {
	var b strings.Builder
	b.WriteString(c.scheme)
	if c.token != "" {
		b.WriteString(" " + c.token)
	}
	for i, p := range c.params {
		if i > 0 {
			b.WriteByte(',')
		} else {
			b.WriteByte(' ')
		}
		b.WriteString(p.name + `="` + quote.Replace(p.value) + `"`)
	}
	return b.String()
}

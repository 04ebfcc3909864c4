package trace

import "strconv"

// fastRecord parses an object of strings without escapes and numbers, which all
// records of the traces are, at several times the speed of encoding/json. It returns
// how long the object is; false for anything else, of which rec may have a part.
func fastRecord(text []byte, rec *Record, n *names) (int, bool) {
	s := fastScanner{text: text, at: 1, ok: true, names: n}
	if s.skip() == '}' {
		return s.at + 1, s.ok
	}
	for s.ok {
		key := s.str()
		s.want(':')
		s.field(key, rec)
		switch s.skip() {
		case ',':
			s.at++
		case '}':
			return s.at + 1, s.ok
		default:
			return 0, false
		}
	}
	return 0, false
}

type fastScanner struct {
	text  []byte
	at    int
	ok    bool
	names *names
}

// skip skips white space and returns the byte it stands before.
func (s *fastScanner) skip() byte {
	for s.at < len(s.text) {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return c
		}
	}
	s.ok = false
	return 0
}

func (s *fastScanner) want(c byte) {
	if s.skip() != c {
		s.ok = false
		return
	}
	s.at++
}

// str reads a string of printable ASCII without escapes.
func (s *fastScanner) str() []byte {
	s.want('"')
	if !s.ok {
		return nil
	}
	rest := s.text[s.at:]
	for i, c := range rest {
		if c == '"' {
			s.at += i + 1
			return rest[:i]
		}
		if c == '\\' || c < ' ' || c > '~' {
			break
		}
	}
	s.ok = false
	return nil
}

// num reads the text of a number as JSON has them, and says whether it is whole.
func (s *fastScanner) num() (text []byte, whole bool) {
	s.skip()
	from := s.at
	if s.is('-', '-') {
		s.at++
	}
	if s.is('0', '0') {
		s.at++
	} else {
		s.digits()
	}
	whole = true
	if s.is('.', '.') {
		whole = false
		s.at++
		s.digits()
	}
	if s.is('e', 'e') || s.is('E', 'E') {
		whole = false
		if s.at++; s.is('+', '+') || s.is('-', '-') {
			s.at++
		}
		s.digits()
	}
	return s.text[from:s.at], whole
}

// is reports whether the next byte is from a to b.
func (s *fastScanner) is(a, b byte) bool {
	return s.at < len(s.text) && s.text[s.at] >= a && s.text[s.at] <= b
}

// digits reads at least one digit.
func (s *fastScanner) digits() {
	from := s.at
	for s.is('0', '9') {
		s.at++
	}
	s.ok = s.ok && s.at > from
}

func (s *fastScanner) integer() int64 {
	text, whole := s.num()
	v, err := strconv.ParseInt(string(text), 10, 64)
	s.ok = s.ok && whole && err == nil
	return v
}

func (s *fastScanner) float() float64 {
	text, _ := s.num()
	v, err := strconv.ParseFloat(string(text), 64)
	s.ok = s.ok && err == nil
	return v
}

// field reads the value of a key into rec. A key that a Record does not have is for
// encoding/json.
func (s *fastScanner) field(key []byte, rec *Record) {
	switch string(key) {
	case "host":
		rec.Host = s.names.of(s.str())
	case "http.request.duration":
		rec.Duration = s.float()
	case "http.request.method":
		rec.Method = s.names.of(s.str())
	case "http.request.remoteaddr":
		rec.RemoteAddr = s.names.of(s.str())
	case "http.request.uri":
		rec.URI = string(s.str())
	case "http.response.status":
		rec.Status = int(s.integer())
	case "http.response.written":
		rec.Written = s.integer()
	case "id", "http.request.useragent":
		s.str()
	case "timestamp":
		rec.Timestamp = string(s.str())
	case "http.request.range":
		rec.Range = string(s.str())
	default:
		s.ok = false
	}
}

// names has each of some strings once: a trace has millions of requests of a few
// thousand clients.
type names struct{ m map[string]string }

// maxNames bounds a names, whatever is in the file.
const maxNames = 1 << 14

func (n *names) of(b []byte) string {
	if v, ok := n.m[string(b)]; ok {
		return v
	}
	if n.m == nil || len(n.m) >= maxNames {
		n.m = map[string]string{}
	}
	v := string(b)
	n.m[v] = v
	return v
}

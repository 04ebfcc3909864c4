package outcome

import (
	"encoding/json"
	"strconv"
)

// appendTo appends the JSON form of r to b: what encoding/json would write, but that
// small numbers have no exponent. A result is written for each request, one at a time,
// and encoding/json takes as long for one as hashing a small body does.
func (r Result) appendTo(b []byte) []byte {
	b = appendNumber(append(b, `{"time":`...), r.Time)
	b = appendNumber(append(b, `,"duration":`...), r.Duration)
	b = appendText(append(b, `,"onTime":`...), r.OnTime)
	b = strconv.AppendInt(append(b, `,"size":`...), r.Size, 10)
	b = appendText(append(b, `,"uri":`...), r.URI)
	b = appendText(append(b, `,"method":`...), r.Method)
	b = strconv.AppendInt(append(b, `,"status":`...), int64(r.Status), 10)
	b = appendNumber(append(b, `,"latency":`...), r.Latency)
	b = appendText(append(b, `,"registry":`...), r.Registry)
	if r.Cache != "" {
		b = appendText(append(b, `,"cache":`...), r.Cache)
	}
	if r.Error != "" {
		b = appendText(append(b, `,"error":`...), r.Error)
	}
	return append(b, '}')
}

// appendNumber appends a number that is finite, as times are.
func appendNumber(b []byte, f float64) []byte { return strconv.AppendFloat(b, f, 'f', -1, 64) }

// appendText appends a string. Others than plain ones are left to encoding/json.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			text, err := json.Marshal(s)
			if err != nil { // a string always has a JSON form
				return append(b, `""`...)
			}
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

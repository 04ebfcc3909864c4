package sharedindex

import (
	"errors"
	"fmt"
	"strconv"
)

// texts returns a reply that is a list of strings.
func texts(reply any) ([]string, error) {
	list, ok := reply.([]any)
	if !ok {
		return nil, fmt.Errorf("a reply is %T", reply)
	}
	out := make([]string, len(list))
	for i, v := range list {
		if out[i], ok = v.(string); !ok {
			return nil, fmt.Errorf("part %d of a reply is %T", i, v)
		}
	}
	return out, nil
}

// parseNumber reads a decimal number of those that scripts can handle.
func parseNumber(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err == nil && n > maxNumber {
		err = errors.New("too large")
	}
	if err != nil {
		return 0, fmt.Errorf("number %q: %w", s, err)
	}
	return int64(n), nil
}

func parseNumbers(texts ...string) ([]int64, error) {
	out := make([]int64, len(texts))
	for i, s := range texts {
		var err error
		if out[i], err = parseNumber(s); err != nil {
			return nil, err
		}
	}
	return out, nil
}

package blob_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/remote/blob"
)

// ends is a source of ten bytes whose reads deliver n of them and end with err.
type ends struct {
	n   int
	err error
}

func (e ends) Size() int64                                              { return 10 }
func (e ends) ReadAt(context.Context, []byte, int64) (n int, err error) { return e.n, e.err }

func TestReadFull(t *testing.T) {
	cut := fmt.Errorf("registry host a.example: %w", io.EOF)
	for _, c := range []struct {
		source ends
		want   string // of the error; "" for none
	}{
		{ends{4, nil}, ""},
		{ends{4, io.EOF}, ""},
		{ends{3, nil}, "4 bytes at offset 6: unexpected EOF"},
		{ends{3, io.EOF}, "4 bytes at offset 6: unexpected EOF"},
		{ends{0, cut}, "4 bytes at offset 6: registry host a.example: EOF"},
	} {
		err := blob.ReadFull(t.Context(), c.source, make([]byte, 4), 6)
		if got := fmt.Sprint(err); (err == nil) != (c.want == "") || !strings.HasSuffix(got, c.want) && err != nil {
			t.Errorf("%+v: %v, want %q", c.source, err, c.want)
		}
	}
}

package zfile_test

import (
	"fmt"
	"testing"

	"github.com/reprise-containers/reprise/backstore/zfile"
)

func BenchmarkRawCRC(b *testing.B) {
	for _, n := range []int{500, 1000, 2000, 4000, 16000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := content(n)
			b.SetBytes(int64(n))
			for b.Loop() {
				zfile.RawCRC(100007, p)
			}
		})
	}
}

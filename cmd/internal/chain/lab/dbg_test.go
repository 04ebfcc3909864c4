package lab_test

import (
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/chain/lab"
)

func TestDbg(t *testing.T) {
	image, err := lab.NewImage(24<<20, 0.6)
	if err != nil {
		t.Fatal(err)
	}
	other := withOther(t, image, 4<<20)
	r := world(t, 25e6/8, 40*time.Millisecond, image)
	for range 2 {
		get := goodput(t, r, image)
		n := newNode(t, r, image, other)
		start := time.Now()
		s, err := n.replay(t.Context())
		t.Log(get/1e6, float64(s.Received)/time.Since(start).Seconds()/1e6, err)
	}
}

package chain_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/remote/blob"
)

// counter counts reads.
type counter struct{ atomic.Int64 }

func (c *counter) ObserveRead(int, time.Duration, error, blob.Priority) { c.Add(1) }

// A registry is quiet when no application waits for it; what is fetched in the
// background does not count, and no more does another registry.
func TestQuiet(t *testing.T) {
	arrived, answer := make(chan struct{}), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-answer
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(strings.Repeat("x", 10_000)))
	}))
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "http://")
	c := newChain(t, chain.Config{})
	b := openBlob(t, c, host+"/app:1", ocispec.Descriptor{Digest: digest.FromString("x"), Size: 10_000})
	fetch := func(off int64, p blob.Priority) chan error {
		done := make(chan error, 1)
		go func() {
			_, err := b.ReadAt(blob.WithPriority(t.Context(), p), make([]byte, 100), off)
			done <- err
		}()
		<-arrived
		return done
	}
	background := fetch(0, blob.Background)
	before := c.Quiet(host + "/other@" + string(digest.FromString("x")))
	if before == 0 {
		t.Error("a background read disturbs")
	}
	demand := fetch(5000, blob.Demand)
	if q := c.Quiet(host + "/app"); q != 0 {
		t.Errorf("quiet for %v with a reader waiting", q)
	}
	if c.Quiet("elsewhere.example/app") == 0 {
		t.Error("another registry is not quiet")
	}
	close(answer)
	for _, done := range []chan error{background, demand} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if q := c.Quiet(host + "/app"); q == 0 {
		t.Error("not quiet after the last reader")
	}
	if c.Quiet("not a reference") != 0 {
		t.Error("what is no reference is quiet")
	}
}

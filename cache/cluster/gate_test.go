package cluster_test

import (
	"context"
	"io"
	"sync"

	"github.com/reprise-containers/reprise/cache/cluster/tier"
)

// gate is a store that writes nothing before it is opened.
type gate struct {
	tier.Store
	reached, open chan struct{}
	once          sync.Once
}

func newGate(s tier.Store) *gate {
	return &gate{Store: s, reached: make(chan struct{}), open: make(chan struct{})}
}

func (g *gate) Create(ctx context.Context, name string, r io.Reader, size int64) error {
	g.once.Do(func() { close(g.reached) })
	select {
	case <-g.open:
	case <-ctx.Done():
		return ctx.Err()
	}
	return g.Store.Create(ctx, name, r, size)
}

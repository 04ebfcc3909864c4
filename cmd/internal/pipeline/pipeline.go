// Package pipeline works on many pieces in parallel and takes the results in
// order: reading a blob in pieces with several requests in flight while
// hashing it from the start to the end.
package pipeline

import (
	"cmp"
	"context"
	"iter"

	"golang.org/x/sync/errgroup"
)

// Run calls work for every item on up to parallel goroutines, and done with
// each result, in the order of the items and one at a time. At most
// 2*parallel results exist at a time, which bounds the memory they take. The
// first error ends it.
func Run[T, R any](ctx context.Context, parallel int, items iter.Seq[T],
	work func(context.Context, T) (R, error), done func(R) error,
) error {
	g, ctx := errgroup.WithContext(ctx)
	// Each item in flight has a channel with room for its result, so that a
	// worker never waits for those before it.
	order := make(chan chan R, parallel)
	g.Go(func() error {
		for result := range order {
			select {
			case r := <-result:
				if err := done(r); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	g.Go(func() error {
		defer close(order)
		return spread(ctx, parallel, items, work, order)
	})
	return g.Wait()
}

// spread starts the work and announces the results in order.
func spread[T, R any](ctx context.Context, parallel int, items iter.Seq[T],
	work func(context.Context, T) (R, error), order chan<- chan R,
) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for item := range items {
		result := make(chan R, 1)
		select {
		case order <- result:
		case <-ctx.Done():
			// Either a worker failed, which is the better error, or the
			// caller gave up.
			err := ctx.Err()
			return cmp.Or(g.Wait(), err)
		}
		g.Go(func() error {
			r, err := work(ctx, item)
			if err == nil {
				result <- r
			}
			return err
		})
	}
	return g.Wait()
}

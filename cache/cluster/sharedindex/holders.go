package sharedindex

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// Hold says that the replica has these contents; what is verified has no origin. Of many
// replicas that have one, the 8 that said so last are remembered, for Config.Remember.
// Many contents take few round trips, and the bound of a call is that of 256 of them.
func (x *Index) Hold(ctx context.Context, contents ...Key) error {
	keys, err := x.hasKeys(contents)
	if err != nil {
		return fmt.Errorf("holding content: %w", err)
	}
	args := []any{x.cfg.Replica, x.cfg.Remember.Milliseconds(), maxKept}
	return x.each(ctx, opHold, keys, func(p redis.Pipeliner, key string) {
		holdScript.EvalSha(ctx, p, []string{key}, args...)
	}, func(p redis.Pipeliner, key string) {
		holdScript.Eval(ctx, p, []string{key}, args...)
	})
}

// Drop says that a replica ("": this one) does not have these contents any more: it
// removed them, or was asked and did not have them.
func (x *Index) Drop(ctx context.Context, replica string, contents ...Key) error {
	if replica == "" {
		replica = x.cfg.Replica
	}
	keys, err := x.hasKeys(contents)
	if err != nil {
		return fmt.Errorf("dropping content: %w", err)
	}
	return x.each(ctx, opDrop, keys, func(p redis.Pipeliner, key string) {
		p.HDel(ctx, key, "@"+replica)
	}, nil)
}

func (x *Index) hasKeys(contents []Key) ([]string, error) {
	keys := make([]string, len(contents))
	for i, k := range contents {
		if err := k.validate(); err != nil {
			return nil, err
		}
		keys[i] = x.hasKey(k)
	}
	return keys, nil
}

package sharedindex

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// node returns the name of the one that has key: an address in a cluster, "" else.
func (x *Index) node(ctx context.Context, key string) (string, error) {
	cluster, ok := x.client.(*redis.ClusterClient)
	if !ok {
		return "", nil
	}
	// Without knowing the cluster's state, nobody can be asked.
	if x.circuit.open("") {
		return "", nil
	}
	c, err := cluster.MasterForKey(ctx, key)
	if err != nil {
		return "", err
	}
	return c.Options().Addr, nil
}

// call runs f, which asks Redis for key, within the bound of a call, unless what has the
// key is known to be away. The error is ErrAway, ErrWrong or that of ctx.
func (x *Index) call(ctx context.Context, kind op, key string, f func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(ctx, x.cfg.Timeout)
	defer cancel()
	node, err := x.node(bound, key)
	if err == nil {
		if x.circuit.open(node) {
			x.count.away.Add(1)
			return ErrAway
		}
		x.count.ops[kind].Add(1)
		err = f(bound)
	}
	return x.judge(ctx, node, key, err)
}

// judge says what an error of a call means.
func (x *Index) judge(ctx context.Context, node, key string, err error) error {
	if err == nil || errors.Is(err, redis.Nil) {
		return err
	}
	// The caller's bound was the shorter one, perhaps: a connection's deadline may be
	// seen before the context's, which is the same.
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if end, ok := ctx.Deadline(); ok && !time.Now().Before(end) {
		return context.DeadlineExceeded
	}
	x.count.errors.Add(1)
	if errors.Is(err, ErrWrong) {
		x.circuit.note(err)
		return err
	}
	var said redis.Error
	if errors.As(err, &said) && saysWrong(said.Error()) {
		x.circuit.note(err)
		return fmt.Errorf("%w: %w", ErrWrong, err)
	}
	if !errors.Is(err, redis.ErrClosed) {
		x.circuit.trip(node, key, err)
	}
	return fmt.Errorf("%w: %w", ErrAway, err)
}

// saysWrong reports whether an error that Redis returned is about a value. All others
// (LOADING, CLUSTERDOWN, READONLY, OOM, NOAUTH, ...) say that it is not to be used now.
func saysWrong(text string) bool {
	return strings.HasPrefix(text, "WRONGTYPE ") ||
		strings.HasPrefix(text, "ERR ") && !strings.HasPrefix(text, "ERR max number of clients")
}

// run runs a script and returns its reply. The first key says where.
func (x *Index) run(ctx context.Context, kind op, s *redis.Script, keys []string, args ...any) (any, error) {
	var reply any
	err := x.call(ctx, kind, keys[0], func(ctx context.Context) (err error) {
		reply, err = s.EvalSha(ctx, x.client, keys, args...).Result()
		if isUnknownScript(err) {
			x.count.ops[kind].Add(1)
			reply, err = s.Eval(ctx, x.client, keys, args...).Result()
		}
		return err
	})
	return reply, err
}

// fenced runs a script that returns 1, or 0 if the caller's token is not valid any more.
func (x *Index) fenced(ctx context.Context, kind op, s *redis.Script, keys []string, args ...any) error {
	reply, err := x.run(ctx, kind, s, keys, args...)
	if err != nil {
		return err
	}
	switch reply {
	case int64(1):
		return nil
	case int64(0):
		return ErrFenced
	}
	return x.wrong("answer %v", reply)
}

// wrong counts and returns an error about something that Redis holds.
func (x *Index) wrong(format string, args ...any) error {
	err := fmt.Errorf("%w: "+format, append([]any{ErrWrong}, args...)...)
	x.count.errors.Add(1)
	x.circuit.note(err)
	return err
}

// isUnknownScript reports whether Redis has to be given the script itself: it was started
// or emptied since.
func isUnknownScript(err error) bool {
	return err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT ")
}

// each does something for many keys, in few round trips: queue puts the command for the
// i-th of n keys into a pipeline. What Redis answers to queue with NOSCRIPT is asked for
// again by load, which sends the script too, if that is not nil.
func (x *Index) each(ctx context.Context, kind op, keys []string, queue, load func(p redis.Pipeliner, key string)) error {
	const batch = 256
	nodes := map[string][]string{}
	for _, k := range keys {
		node, err := x.node(ctx, k)
		if err != nil {
			return x.judge(ctx, node, k, err)
		}
		nodes[node] = append(nodes[node], k)
	}
	var errs []error
	for _, keys := range nodes {
		for len(keys) > 0 {
			some := keys[:min(batch, len(keys))]
			keys = keys[len(some):]
			err := x.call(ctx, kind, some[0], func(ctx context.Context) error {
				x.count.ops[kind].Add(uint64(len(some) - 1))
				return x.pipeline(ctx, kind, some, queue, load)
			})
			if err != nil {
				errs = append(errs, err)
				break // the node does not answer, or has wrong values
			}
		}
	}
	return errors.Join(errs...)
}

// manyKeys are so many that the text of a script, some 3 KB, is little beside them.
const manyKeys = 64

// pipeline sends the commands for keys, which are of one node as far as is known. The first
// of many brings the script along, so that a server that does not know it does not answer
// all with NOSCRIPT; of few, which are more frequent, it does when that was answered.
func (x *Index) pipeline(ctx context.Context, kind op, keys []string, queue, load func(p redis.Pipeliner, key string)) error {
	bring := load != nil && len(keys) >= manyKeys
	for {
		p := x.client.Pipeline()
		for i, k := range keys {
			if i == 0 && bring {
				load(p, k)
			} else {
				queue(p, k)
			}
		}
		cmds, err := p.Exec(ctx)
		if !isUnknownScript(err) || load == nil {
			return err
		}
		// Some again: at least the first of them is done then.
		var unknown []string
		for i, c := range cmds {
			switch {
			case isUnknownScript(c.Err()):
				unknown = append(unknown, keys[i])
			case c.Err() != nil:
				return c.Err()
			}
		}
		keys, bring = unknown, true
		x.count.ops[kind].Add(uint64(len(keys)))
	}
}

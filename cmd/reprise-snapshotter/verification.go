package main

import (
	"context"
	"sync"

	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cmd/internal/metrics"
)

// verification counts what was not what a chunk table says, and logs it: each
// chunk once for each host, because a reader that is retried for ever meets it
// again and again.
type verification struct {
	ctx     context.Context
	metrics *metrics.Metrics

	mu     sync.Mutex
	logged map[part]bool
}

// part is a chunk, or with leaf -1 a part of the table at offset, of a blob as
// somebody serves it.
type part struct {
	blob         digest.Digest
	leaf, offset int64
	host         string
}

// unknownHost stands for whoever served what the cache holds, or what another
// read fetched.
const unknownHost = "unknown"

// maxLogged bounds what is remembered; beyond, things are said again.
const maxLogged = 10_000

func newVerification(ctx context.Context, m *metrics.Metrics) *verification {
	return &verification{ctx: ctx, metrics: m, logged: make(map[part]bool)}
}

// VerifyFailed implements chunks.Observer.
func (v *verification) VerifyFailed(dgst digest.Digest, leaf, offset, length int64, origin string) {
	if origin == "" {
		origin = unknownHost
	}
	v.metrics.VerifyFailed(origin)
	if !v.first(part{dgst, leaf, offset, origin}) {
		return
	}
	what := "a chunk of a layer"
	if leaf < 0 {
		what = "a part of a layer's chunk table"
	}
	log.G(v.ctx).WithFields(log.Fields{"digest": dgst, "chunk": leaf, "offset": offset, "length": length, "host": origin}).
		Warnf("%s is not what the image says; it is asked for again, from another host where there is one", what)
}

// first reports whether p is new.
func (v *verification) first(p part) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.logged[p] {
		return false
	}
	if len(v.logged) >= maxLogged {
		clear(v.logged)
	}
	v.logged[p] = true
	return true
}

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/integration/registrycache/origin"
	"github.com/reprise-containers/reprise/integration/registrycache/swarm"
)

func (s *soak) random(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(s.seed, stream)) }

// client does what clients do, one thing after the other.
func (s *soak) client(ctx context.Context, i int) {
	rnd := s.random(uint64(i))
	names := []string{"alice", "bob"}
	t := swarm.Target{Base: "http://" + s.cache.Address, Authorization: s.users[names[i%2]], Client: swarm.Lone()}
	defer t.Client.CloseIdleConnections()
	for ctx.Err() == nil {
		blob := s.stock.pick(rnd)
		switch n := rnd.IntN(100); {
		case n < 45:
			s.whole(ctx, t, blob, rnd)
		case n < 75:
			s.parts(ctx, t, blob, rnd)
		case n < 85:
			s.manifest(ctx, t, rnd)
		case n < 93:
			s.intrude(ctx, t, blob, rnd)
		default:
			s.leave(ctx, t, blob, rnd)
		}
	}
}

// whole reads a blob; when the upstream is honest it must come.
func (s *soak) whole(ctx context.Context, t swarm.Target, blob *origin.Content, rnd *rand.Rand) {
	p := swarm.Pull{Repo: repository, Digest: blob.Digest, Blob: blob, Retry: rnd.IntN(2) == 0}
	if p.Retry {
		// Give up at last: a kill and a lie take their time.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	r, err := t.Pull(ctx, p)
	s.judge(ctx, "whole", r, err)
}

// parts reads a few ranges of a blob.
func (s *soak) parts(ctx context.Context, t swarm.Target, blob *origin.Content, rnd *rand.Rand) {
	for range 1 + rnd.IntN(20) {
		n := 1 + rnd.Int64N(min(blob.Size, 128<<10))
		p := swarm.Pull{Repo: repository, Digest: blob.Digest, Blob: blob, Off: rnd.Int64N(blob.Size - n + 1), N: n}
		r, err := t.Pull(ctx, p)
		s.judgePart(ctx, r, err)
	}
}

// judge counts how a read went. Wrong bytes in what looks whole are a failure of
// the soak; a broken connection, or an honest refusal, is not.
func (s *soak) judge(ctx context.Context, what string, r swarm.Result, err error) {
	s.tally.bytes(r.Bytes)
	var status *swarm.StatusError
	switch {
	case err == nil:
		s.tally.add(what + ": right")
	case errors.Is(err, swarm.ErrWrong) && !r.Broken && r.Tries > 1:
		// The answer was a part, from where an earlier one broke off to the end.
		s.tally.add(what + ": a lie of the upstream came through in the rest, after an answer that was broken off")
	case errors.Is(err, swarm.ErrWrong) && !r.Broken:
		s.tally.fail(fmt.Errorf("%s: %w", what, err))
	case errors.Is(err, swarm.ErrWrong):
		s.tally.add(what + ": wrong bytes in an answer that was broken off")
	case ctx.Err() != nil:
		s.tally.add(what + ": ended by the client")
	case errors.As(err, &status):
		s.tally.add(fmt.Sprintf("%s: refused with %d", what, status.Status))
	default:
		s.tally.add(what + ": broken off")
	}
}

// judgePart is judge for a part, which nobody can check before the blob is whole:
// a lie of the upstream comes through, as it would without a cache. It is counted,
// and must end with the upstream's lies.
func (s *soak) judgePart(ctx context.Context, r swarm.Result, err error) {
	if errors.Is(err, swarm.ErrWrong) && !r.Broken && strings.HasPrefix(err.Error(), "bytes ") {
		s.tally.bytes(r.Bytes)
		s.tally.add("part: a lie of the upstream came through")
		return
	}
	s.judge(ctx, "part", r, err)
}

// manifest reads a manifest by tag or digest; whatever comes must be one that was.
func (s *soak) manifest(ctx context.Context, t swarm.Target, rnd *rand.Rand) {
	tag := rnd.IntN(tags)
	ref, want := fmt.Sprintf("t%d", tag), digest.Digest("")
	if rnd.IntN(2) == 0 {
		want = s.stock.at(tag)
		ref = want.String()
	}
	resp, body, err := t.Get(ctx, repository+"/manifests/"+ref, nil) //nolint:bodyclose // Get has read and closed it
	switch {
	case err != nil:
		s.tally.add("manifest: broken off")
	case resp.StatusCode != http.StatusOK:
		s.tally.add(fmt.Sprintf("manifest: refused with %d", resp.StatusCode))
	case !s.stock.known(body) || want != "" && digest.FromBytes(body) != want:
		// By tag, what the upstream says is what it is.
		if want == "" {
			s.tally.add("manifest: a lie of the upstream came through")
			return
		}
		s.tally.fail(fmt.Errorf("manifest %s is %.100q: %w", ref, body, swarm.ErrWrong))
	default:
		s.tally.add("manifest: right")
	}
}

// intrude asks for what the caller may not read.
func (s *soak) intrude(ctx context.Context, t swarm.Target, blob *origin.Content, rnd *rand.Rand) {
	t.Authorization = []string{"", s.users[mallory], "Bearer forged"}[rnd.IntN(3)]
	header := map[string]string{}
	if rnd.IntN(2) == 0 {
		header["Range"] = "bytes=0-10"
	}
	path := repository + "/blobs/" + blob.Digest.String()
	if rnd.IntN(4) == 0 {
		path = repository + "/manifests/" + s.stock.at(0).String()
	}
	resp, body, err := t.Get(ctx, path, header) //nolint:bodyclose // Get has read and closed it
	switch {
	case err != nil:
		s.tally.add("intruder: broken off")
	case resp.StatusCode < 400:
		s.tally.fail(fmt.Errorf("an intruder got %s with %d bytes of %s", resp.Status, len(body), path))
	default:
		s.tally.add("intruder: refused")
	}
}

// leave reads a little and goes away.
func (s *soak) leave(ctx context.Context, t swarm.Target, blob *origin.Content, rnd *rand.Rand) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := swarm.Pull{Repo: repository, Digest: blob.Digest, Blob: blob, First: func() {
		if rnd.IntN(2) == 0 {
			cancel()
		}
	}}
	if rnd.IntN(4) == 0 {
		p.Rate = 4 << 20
	}
	t.Client = nil
	r, err := t.Pull(ctx, p)
	s.judge(ctx, "leaver", r, err)
}

package sharedindex

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	followBlock = 2 * time.Second // an idle follower looks so often whether the stream is still the same
	followRetry = time.Second
	followBatch = 100
)

// Announcement is one payload that a replica sent to all; or, if Missed, the news that
// some were lost before Follow could read them, which has neither replica nor payload.
type Announcement struct {
	ID      string // where to go on reading: the argument of Follow
	Replica string // who sent it; the caller's own come too
	Payload []byte
	Missed  bool
}

func (x *Index) eventKey() string { return x.tagged("events", "stream") }

// Announce sends a payload to all replicas, this one too.
func (x *Index) Announce(ctx context.Context, payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("announcing: %d bytes are more than %d", len(payload), MaxPayload)
	}
	_, err := x.run(ctx, opAnnounce, announceScript, []string{x.eventKey()}, x.cfg.MaxEvents, x.cfg.Replica, payload)
	return err
}

// position is a place in the stream: the ID of an entry, and the number that its writer
// gave it, which is one more than that of the entry before.
type position struct {
	ms, seq uint64
	n       int64
}

func (p position) id() string { return fmt.Sprintf("%d-%d", p.ms, p.seq) }

func (p position) String() string { return fmt.Sprintf("%s/%d", p.id(), p.n) }

func (p position) before(o position) bool { return p.ms < o.ms || p.ms == o.ms && p.seq < o.seq }

func parsePosition(s string) (position, error) {
	id, n, ok := strings.Cut(s, "/")
	p, err := parseID(id)
	if err == nil && ok {
		p.n, err = parseNumber(n)
	}
	if err != nil || !ok {
		return position{}, fmt.Errorf("position %q in the stream", s)
	}
	return p, nil
}

func parseID(s string) (p position, err error) {
	ms, seq, ok := strings.Cut(s, "-")
	p.ms, err = strconv.ParseUint(ms, 10, 64)
	if err == nil {
		p.seq, err = strconv.ParseUint(seq, 10, 64)
	}
	if err != nil || !ok {
		return position{}, fmt.Errorf("ID %q in the stream", s)
	}
	return p, nil
}

// Tail returns the ID to give to Follow so that it tells all that is announced from now
// on, and nothing from before; also where nothing was announced yet.
func (x *Index) Tail(ctx context.Context) (id string, err error) {
	var p position
	err = x.call(ctx, opFollow, x.eventKey(), func(ctx context.Context) (err error) {
		p, err = tail(ctx, x.client, x.eventKey())
		return err
	})
	if err != nil {
		return "", err
	}
	return p.String(), nil
}

// Follow calls f for each announcement after the one with the ID after ("": from when
// Redis first answers), until ctx ends, whose error it returns. While Redis is away it
// waits. Where some are lost, because too many came or Redis lost them, or because after
// is no ID, it says so and goes on. One caller at a time gets calls of f, in order.
func (x *Index) Follow(ctx context.Context, after string, f func(Announcement)) error {
	fo := follower{x: x, f: f}
	if after != "" {
		p, err := parsePosition(after)
		fo.at, fo.known, fo.astray = p, err == nil, err != nil
	}
	fo.client = x.dial()
	defer fo.client.Close()
	// A read that waits ends with its connection.
	defer context.AfterFunc(ctx, func() { fo.client.Close() })()
	for {
		if err := fo.step(ctx); err != nil && ctx.Err() == nil {
			x.count.errors.Add(1)
			x.circuit.note(err)
			select {
			case <-ctx.Done():
			case <-time.After(followRetry):
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// follower is one call of Follow.
type follower struct {
	x      *Index
	f      func(Announcement)
	client redis.UniversalClient // of its own: a read waits
	at     position              // the last one that was read
	known  bool                  // at is set
	astray bool                  // it is not known what was read before: some may be missed
}

// step reads what comes next, or looks whether nothing can come.
func (fo *follower) step(ctx context.Context) error {
	if !fo.known {
		end, err := fo.tail(ctx)
		if err != nil {
			return err
		}
		fo.at, fo.known = end, true
		if fo.astray {
			fo.miss(end)
		}
	}
	bound, cancel := context.WithTimeout(ctx, followBlock+fo.x.cfg.Timeout)
	defer cancel()
	fo.x.count.ops[opFollow].Add(1)
	streams, err := fo.client.XRead(bound, &redis.XReadArgs{
		Streams: []string{fo.x.eventKey(), fo.at.id()}, Count: followBatch, Block: followBlock,
	}).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return fo.look(ctx)
	case err != nil:
		return err
	}
	for _, s := range streams {
		for _, m := range s.Messages {
			if ctx.Err() != nil {
				return nil
			}
			if err := fo.take(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// look sees whether the stream lost its end: then what was there was missed, and what
// comes next may come under an ID that is not after the last one that was read.
func (fo *follower) look(ctx context.Context) error {
	end, err := fo.tail(ctx)
	if err != nil {
		return err
	}
	if end.before(fo.at) || end.id() == fo.at.id() && end.n != fo.at.n {
		fo.miss(end)
	}
	return nil
}

func (fo *follower) tail(ctx context.Context) (position, error) {
	bound, cancel := context.WithTimeout(ctx, fo.x.cfg.Timeout)
	defer cancel()
	fo.x.count.ops[opFollow].Add(1)
	return tail(bound, fo.client, fo.x.eventKey())
}

// tail returns the position of a stream's last entry; the zero one if there is none: the
// first one that is announced then has the number 1.
func tail(ctx context.Context, client redis.UniversalClient, stream string) (position, error) {
	last, err := client.XRevRangeN(ctx, stream, "+", "-", 1).Result()
	if err != nil || len(last) == 0 {
		return position{}, err
	}
	p, _, err := parseEntry(last[0])
	return p, err
}

// take hands one entry on.
func (fo *follower) take(m redis.XMessage) error {
	p, a, err := parseEntry(m)
	if err != nil {
		return err
	}
	if p.n == 0 || p.n != fo.at.n+1 {
		// Who goes on from there gets this entry next.
		fo.miss(position{fo.at.ms, fo.at.seq, max(p.n, 1) - 1})
	}
	fo.at = p
	if p.n != 0 {
		fo.f(a)
	}
	return nil
}

func (fo *follower) miss(p position) {
	fo.at = p
	fo.f(Announcement{ID: p.String(), Missed: true})
}

// parseEntry reads an entry of the stream. One that no replica wrote has the number 0.
func parseEntry(m redis.XMessage) (position, Announcement, error) {
	p, err := parseID(m.ID)
	if err != nil {
		return position{}, Announcement{}, err
	}
	n, _ := m.Values["n"].(string)
	replica, _ := m.Values["replica"].(string)
	payload, _ := m.Values["payload"].(string)
	if p.n, err = parseNumber(n); err != nil || p.n == 0 || !validName(replica) || len(payload) > MaxPayload {
		p.n = 0
		return p, Announcement{}, nil
	}
	return p, Announcement{ID: p.String(), Replica: replica, Payload: []byte(payload)}, nil
}

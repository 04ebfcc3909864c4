package sharedindex

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Replica is one that is there.
type Replica struct {
	Name   string
	Status []byte    // what it said of itself
	Seen   time.Time // when it did, by the clock of this machine
}

func (x *Index) beatKey() string { return x.tagged("replicas", "beats") }

// Beat says that the replica is there, for Config.BeatTTL, and how it is. It returns what
// was said in its name before; known is false if nothing was for so long, or if the index
// has lost it.
func (x *Index) Beat(ctx context.Context, status []byte) (before []byte, known bool, err error) {
	if len(status) > MaxStatus {
		return nil, false, fmt.Errorf("telling the replica's status: %d bytes are more than %d", len(status), MaxStatus)
	}
	reply, err := x.run(ctx, opBeat, beatScript, []string{x.beatKey()}, x.cfg.Replica, status, x.cfg.BeatTTL.Milliseconds())
	if err != nil {
		return nil, false, err
	}
	s, err := texts(reply)
	switch {
	case err != nil:
		return nil, false, x.wrong("%w", err)
	case len(s) == 0:
		return nil, false, nil
	case len(s) > 1:
		return nil, false, x.wrong("an earlier status of %d parts", len(s))
	}
	return []byte(s[0]), true, nil
}

// Replicas returns those that are there, by name.
func (x *Index) Replicas(ctx context.Context) ([]Replica, error) {
	reply, err := x.run(ctx, opReplicas, replicasScript, []string{x.beatKey()}, x.cfg.BeatTTL.Milliseconds())
	if err != nil {
		return nil, err
	}
	all, err := parseReplicas(reply, time.Now())
	if err != nil {
		return nil, x.wrong("%w", err)
	}
	return all, nil
}

// parseReplicas reads the reply of replicas.lua, which was made at now.
func parseReplicas(reply any, now time.Time) ([]Replica, error) {
	s, err := texts(reply)
	if err != nil {
		return nil, err
	}
	if len(s)%2 != 1 {
		return nil, fmt.Errorf("replicas of %d parts", len(s))
	}
	there, err := parseNumber(s[0])
	if err != nil {
		return nil, err
	}
	var out []Replica
	for i := 1; i < len(s); i += 2 {
		at, status, ok := strings.Cut(s[i+1], " ")
		ms, err := parseNumber(at)
		if err != nil || !ok || !validName(s[i]) || len(status) > MaxStatus {
			return nil, fmt.Errorf("replica %q", s[i])
		}
		ago := time.Duration(max(0, there-ms)) * time.Millisecond
		out = append(out, Replica{s[i], []byte(status), now.Add(-ago)})
	}
	slices.SortFunc(out, func(a, b Replica) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

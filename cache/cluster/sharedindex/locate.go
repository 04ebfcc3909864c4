package sharedindex

import (
	"context"
	"fmt"
	"strconv"
)

// keys of a content.
func (k Key) suffix() string {
	if k.Origin == "" {
		return ""
	}
	return ":" + k.Origin
}

func (x *Index) tagged(tag, rest string) string { return x.cfg.Prefix + ":{" + tag + "}:" + rest }

func (x *Index) leaseKey(k Key) string { return x.tagged(k.Digest.String(), "lease"+k.suffix()) }
func (x *Index) hasKey(k Key) string   { return x.tagged(k.Digest.String(), "has"+k.suffix()) }

// Locate says where the content at w.Off is, or grants a lease to fetch it. One script.
//
// If there is a live lease of that byte, whose token is not w.Over, the answer has
// Fetching, and Holders and Stored beside it. A lease of the caller's own replica is
// returned like another's. Otherwise, if there are Holders or Stored and w.Insist is not
// set, these. Otherwise a Lease from w.Off to w.End, or to where the next live lease
// begins.
func (x *Index) Locate(ctx context.Context, w Wanted) (Place, error) {
	return x.locate(ctx, w, maxLeases)
}

// locate is Locate that grants a lease only while there are fewer than so many.
func (x *Index) locate(ctx context.Context, w Wanted, leases int) (Place, error) {
	if err := w.validate(); err != nil {
		return Place{}, fmt.Errorf("locating content: %w", err)
	}
	keys := []string{x.leaseKey(w.Key), x.hasKey(Key{Digest: w.Digest})}
	if w.Origin != "" {
		keys = append(keys, x.hasKey(w.Key))
	}
	insist := "0"
	if w.Insist {
		insist = "1"
	}
	reply, err := x.run(ctx, opLocate, locateScript, keys, x.cfg.Replica, w.Off, w.End, insist,
		strconv.FormatUint(w.Over, 10), x.cfg.LeaseTTL.Microseconds(), x.cfg.Remember.Milliseconds(),
		x.kept(), leases, MaxHolders)
	if err != nil {
		return Place{}, err
	}
	place, err := parsePlace(reply)
	if err != nil {
		return Place{}, x.wrong("%w", err)
	}
	return place, nil
}

func (w Wanted) validate() error {
	if err := w.Key.validate(); err != nil {
		return err
	}
	if w.Off < 0 || w.End <= w.Off || w.End > maxNumber {
		return fmt.Errorf("extent from %d to %d", w.Off, w.End)
	}
	return nil
}

// parsePlace reads the reply of locate.lua.
func parsePlace(reply any) (Place, error) {
	s, err := texts(reply)
	if err != nil {
		return Place{}, err
	}
	const fixed = 7
	if len(s) < fixed || len(s) > fixed+MaxHolders {
		return Place{}, fmt.Errorf("place of %d parts", len(s))
	}
	var n [fixed]int64
	for i := range n {
		if i == 0 || i == 4 {
			continue
		}
		if n[i], err = parseNumber(s[i]); err != nil {
			return Place{}, err
		}
	}
	p := Place{Holders: s[fixed:]}
	for _, name := range p.Holders {
		if !validName(name) {
			return Place{}, fmt.Errorf("holder %q", name)
		}
	}
	if n[5] != 0 {
		p.Stored = &Stored{uint64(n[5]), n[6]}
	}
	if s[0] == "none" {
		return p, nil
	}
	l := Lease{uint64(n[1]), Extent{n[2], n[3]}}
	if l.Token == 0 || l.End <= l.Off {
		return Place{}, fmt.Errorf("lease %d from %d to %d", l.Token, l.Off, l.End)
	}
	switch {
	case s[0] == "lease":
		p.Lease = &l
	case s[0] == "fetching" && validName(s[4]):
		p.Fetching = &Fetching{l, s[4]}
	default:
		return Place{}, fmt.Errorf("place %q of %q", s[0], s[4])
	}
	return p, nil
}

// Renew prolongs a lease. ErrFenced if it ran out or was taken over.
func (x *Index) Renew(ctx context.Context, k Key, token uint64) error {
	if err := validToken(k, token); err != nil {
		return fmt.Errorf("renewing a lease: %w", err)
	}
	return x.fenced(ctx, opRenew, renewScript, []string{x.leaseKey(k)}, x.cfg.Replica, token,
		x.cfg.LeaseTTL.Microseconds(), x.kept())
}

// Release ends a lease. If held, the replica is a holder of k from now on. ErrFenced if
// the lease ran out or was taken over: then nothing is written.
func (x *Index) Release(ctx context.Context, k Key, token uint64, held bool) error {
	if err := validToken(k, token); err != nil {
		return fmt.Errorf("releasing a lease: %w", err)
	}
	keys := []string{x.leaseKey(k)}
	if held {
		keys = append(keys, x.hasKey(k))
	}
	return x.fenced(ctx, opRelease, releaseScript, keys, x.cfg.Replica, token,
		x.cfg.Remember.Milliseconds(), maxKept)
}

func validToken(k Key, token uint64) error {
	if token == 0 || token > maxNumber {
		return fmt.Errorf("token %d is none", token)
	}
	return k.validate()
}

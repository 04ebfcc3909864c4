package sharedindex

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
)

func (x *Index) claimKey(d digest.Digest) string { return x.tagged(d.String(), "claim") }

// Claim asks for the right to store d in the shared tier, for LeaseTTL if it is not
// renewed. It is not ok if d is stored, or somebody is at it. The token is the generation
// of the object.
func (x *Index) Claim(ctx context.Context, d digest.Digest) (token uint64, ok bool, err error) {
	if err := d.Validate(); err != nil {
		return 0, false, fmt.Errorf("claiming %q: %w", d, err)
	}
	keys := []string{x.claimKey(d), x.hasKey(Key{Digest: d})}
	reply, err := x.run(ctx, opClaim, claimScript, keys, x.cfg.Replica, x.cfg.LeaseTTL.Microseconds(), x.kept())
	if err != nil {
		return 0, false, err
	}
	text, _ := reply.(string)
	n, err := parseNumber(text)
	if err != nil {
		return 0, false, x.wrong("claim: %w", err)
	}
	return uint64(n), n != 0, nil
}

// RenewClaim prolongs a claim. ErrFenced if it ran out, ended or was taken over.
func (x *Index) RenewClaim(ctx context.Context, d digest.Digest, token uint64) error {
	if err := validToken(Key{Digest: d}, token); err != nil {
		return fmt.Errorf("renewing a claim: %w", err)
	}
	return x.fenced(ctx, opRenewClaim, renewClaimScript, []string{x.claimKey(d)}, token,
		x.cfg.LeaseTTL.Microseconds(), x.kept())
}

// Unclaim ends a claim without an object. ErrFenced if it is not the caller's any more.
func (x *Index) Unclaim(ctx context.Context, d digest.Digest, token uint64) error {
	if err := validToken(Key{Digest: d}, token); err != nil {
		return fmt.Errorf("ending a claim: %w", err)
	}
	return x.fenced(ctx, opUnclaim, renewClaimScript, []string{x.claimKey(d)}, token, 0, x.kept())
}

// Publish says that d is in the shared tier, and ends the claim whose token s.Generation
// is. ErrFenced if a newer token was granted or published: then nothing is written. A
// claim that ran out without another one being granted may still be published, because
// the object is whole, and no other one can be meant. So may an object that was found.
func (x *Index) Publish(ctx context.Context, d digest.Digest, s Stored) error {
	return x.PublishFound(ctx, d, s.Generation, s)
}

// PublishFound is Publish of an object that was found, in the place of one that would have
// been stored under the claim of the token, which ends.
func (x *Index) PublishFound(ctx context.Context, d digest.Digest, token uint64, s Stored) error {
	err := errors.Join(validToken(Key{Digest: d}, token), validToken(Key{Digest: d}, s.Generation))
	if err == nil && (s.Size < 0 || s.Size > maxNumber) {
		err = fmt.Errorf("size %d", s.Size)
	}
	if err != nil {
		return fmt.Errorf("publishing an object: %w", err)
	}
	keys := []string{x.claimKey(d), x.hasKey(Key{Digest: d})}
	return x.fenced(ctx, opPublish, publishScript, keys, s.Generation, s.Size, x.cfg.Remember.Milliseconds(), token)
}

// Unpublish says that an object is not there or is damaged. Nothing happens if another
// one is published.
func (x *Index) Unpublish(ctx context.Context, d digest.Digest, generation uint64) error {
	if err := validToken(Key{Digest: d}, generation); err != nil {
		return fmt.Errorf("withdrawing an object: %w", err)
	}
	_, err := x.run(ctx, opUnpublish, unpublishScript, []string{x.hasKey(Key{Digest: d})}, generation)
	return err
}

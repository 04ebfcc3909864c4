// Package permit answers whether a caller may have what is in the cache: its
// upstream is asked with the caller's own credentials.
//
// A permission is of one resource and one credential, and is never derived from
// another: who may read a repository may not for that read every digest by way of
// it. Answers are kept as long as Config allows, under a salted hash of the
// credential, and no longer than a token says it is valid. An answer 401, 403 or 404
// ends what was kept.
//
// # Several replicas
//
// Checkers of several replicas may share what they were allowed, see Checker.Share:
// before a HEAD, one asks whether another replica had an answer to the same HEAD, for
// the same credential, upstream, repository, kind, reference and Accept. Only
// permissions are shared, and only where Config lets one count for more than a moment:
// what is asked for each time makes no call. What is kept here makes none either. All
// replicas should have the same Config.
//
// The place gets no credential and no name. A scope is
//
//	HMAC(key, credential, target, repository)
//
// and an item HMAC(key, scope, kind, reference, Accept), under a key of the cluster
// secret. A value says what the upstream says of the resource and how long that counts;
// it has a MAC, under another key of that secret, over scope, item, epoch and itself.
//
// A permission counts from when its HEAD was sent, wherever it is used. How old it is,
// the place says by how much longer it keeps it; no clock is compared with that of
// another machine. A permission that another replica asked for counts here as one asked
// for here, from the same time on, also for StaleIfError; it lives in the place only as
// long as the TTL, so nobody has it later than that.
//
// A refusal raises the epoch of its scope in the place: no replica finds any more there
// what was granted before, nor what was asked before and is answered later. What another
// replica has kept itself ends with its TTL. So a revocation holds within the TTL
// everywhere, and at once where it came in: a Checker that could not tell the place
// counts nothing from before the refusal. A 404, which here ends one resource's
// permission, does so for the scope in the place, if permissions of that kind are
// shared: an epoch is what no grant on its way gets past. That costs HEADs.
//
// # If the place is hostile or lost
//
// Who reads it learns which digests are permitted, how often, and nothing of to whom or
// where. Who writes it, without the secret, can grant nothing, and can move no
// permission to another credential, resource or epoch. What is left is to bring back
// what was there: a permission together with its epoch, after a refusal, or for longer
// than the place was told to keep it. Therefore a value also has the time when it ends,
// by the clock of the replica that made it, and none counts later than that, by the
// clock of the reader: a permission lives at most for its TTL, whatever is done to the
// place, plus what the clocks differ then. The same holds if a fail-over of the place
// loses a refusal. If clocks differ and nobody is hostile, what happens is that less is
// shared.
//
// If the place does not answer, the upstream is asked as if there were none, after at
// most a second; whoever implements Shared is to fail sooner.
package permit

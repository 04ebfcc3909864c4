// Package sharedindex is what the replicas of a registry cache tell each other through
// Redis or Redis Cluster: who has which content, who fetches which part of it from its
// upstream, which object of the shared tier it is, what became invalid, who is there,
// and what was decided about permissions.
//
// Nothing of it is needed. Every call has a bound; after a failure calls fail at once,
// with ErrAway, until Run has seen Redis again. A replica then works alone. Redis may
// lose all it has at any time, which costs fetches that were made before, never a wrong
// byte: content is verified by its digest, and objects of the tier by their own MACs.
//
// # Leases
//
// A replica that fetches a part of a content from its upstream holds a lease of it.
// Leases of one key that are alive never overlap. A lease has a token; tokens of a key
// strictly grow, also when Redis was emptied, because a token is at least the time of
// Redis in microseconds. That clock is the only one: leases end by it. Whoever held a
// lease that ran out, or was taken over, is told so (ErrFenced) and nothing of what it
// says is written. The same holds for claims, by which one replica at a time stores a
// digest in the shared tier.
//
// With replication, a fail-over of Redis may lose the newest leases, and two replicas
// then fetch the same part. Tokens still differ.
//
// # Keys
//
// All keys of one operation have the same hash tag, so that a script may use them in a
// cluster. Every key has a TTL or is bounded:
//
//	<prefix>:{<digest>}:has[:<origin>]    hash: who has it, and the object of the tier
//	<prefix>:{<digest>}:lease[:<origin>]  hash: leases and the last token
//	<prefix>:{<digest>}:claim             hash: the claim and the last token
//	<prefix>:{events}:stream              stream of announcements
//	<prefix>:{replicas}:beats             hash: who is there
//	<prefix>:{<scope>}:epoch              the epoch of a scope of permissions
//	<prefix>:{<scope>}:item:<item>        one permission
//
// Redis keeps the hash of a digest compact as long as no name of a replica is longer than
// 63 bytes (its hash-max-listpack-value, less one); else it takes nearly twice the
// memory.
//
// # What is trusted
//
// Redis gets no credential and no name that a permission is about, see package permit,
// which makes names and seals values under the cluster secret. Who can write to Redis, but
// has no secret, can plant no permission; it can name holders that have nothing and make
// replicas fetch more than they need. What is read is parsed as what a stranger sent.
//
// A scope of permissions gets an epoch when something is granted in it or it is revoked;
// to ask writes nothing, because anybody can ask, with credentials that are made up. Until
// then an epoch is a time, and what is granted under it counts if it is not older than the
// epochs of revocations are kept. If Redis loses the epoch of a revocation in that time, as
// a fail-over may, what was asked before that may be granted after it.
package sharedindex

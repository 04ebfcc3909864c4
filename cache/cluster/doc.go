// Package cluster lets replicas of a registry cache share what they fetch. Each is a
// cache of its own, with all that it needs; together they ask an upstream for a byte
// once.
//
//	fill.Group -> source -> peer.Client               a replica that has it, or fetches it
//	                     -> tier.Tier                 the shared tier, L2
//	                     -> the upstream's fill.Source  under a lease
//	fill.Group -> writer -> tier.Tier                 what was verified, written back
//	peer.Handler -> Cluster.Provide -> cache, fill.Follower
//
// A source decides anew for each segment of what it reads: whoever fetches the next
// byte at that moment, a replica that holds it, the shared tier, or the upstream, under
// a lease that says to the others who is at it. If one of them ends early or fails, the
// next one goes on at that byte. Only what the upstream said is an error of the reader's.
//
// # Leases
//
// A lease is of an extent of a blob, and no two of one blob overlap, as fetches within
// one replica do not (see fill). It has a token that is larger than that of all before
// it. Its holder renews it. A holder that was stopped for longer than the lease lasts
// finds out before it stores another byte: it looks at the clock before it reads on, and
// asks. What it would write in the index is refused by its token, and what it would
// write in the tier has a name that its token is part of. A replica that finds the
// holder of a lease gone need not wait for its end; if it was wrong about that, the
// holder finds its lease taken over.
//
// # What is trusted
//
// Peers know the secret of the cluster, and so does who wrote an object of the tier.
// Beyond that, bytes of a blob that is not verified are its origin's word still, and
// are kept under that origin, here as there. A whole blob that turns out to be wrong is
// not asked of peers for a while: the disk of one may have become so. The index is
// believed in nothing but where to ask.
//
// # When something is away
//
// Without the index there are no leases and no peers; the tier is asked by its own list,
// then the upstream. Without the tier there is the upstream. No call waits long for
// either, see sharedindex and tier.
package cluster

// Package peer carries blobs between the replicas of a registry cache: HTTPS on a
// listener of its own.
//
// # Who is a peer
//
// Whoever knows the secret of the cluster. An Ed25519 key is derived from it (HKDF,
// RFC 5869), which all replicas have; each shows a certificate with that key, and
// takes no other. TLS 1.3 with client certificates proves to both sides that the other
// has the key, and hence the secret, without an authority or names to look after.
//
// # What is asked
//
//	GET /v1/blob/DIGEST?origin=ORIGIN&off=OFF&end=END
//
// is answered with the bytes from OFF on, to END at most and END = -1 to the end of
// the blob, as far as the replica has them or they are on their way to it; the answer
// may end before END. The header Reprise-Blob-Size has the size of the blob. 404 is the
// answer of who has nothing of the blob, 416 of who does not have the byte at OFF; its header Reprise-Next says
// where in the range it has something, if it does.
//
// Nothing is fetched for a peer: whom it asks for was checked by the peer, with
// credentials that stay there.
package peer

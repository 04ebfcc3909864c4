// Package tier keeps whole blobs where all replicas of a registry cache reach them:
// in a directory (NFS and the like) or in S3.
//
// # Names
//
// A blob is the object
//
//	v1-<key ID>/<algorithm>/<first 2 hex digits>/<hex digits of the digest>/<generation, 16 hex digits>
//
// The key ID are 8 hex digits that HKDF-SHA256 derives from the cluster's secret. So
// objects of another secret are not found, and stay: they would look damaged, and are
// good for those who have it.
//
// A generation is a fencing token: it is given to one writer, so nobody writes over
// what another wrote. The largest generation of a digest counts; the others are
// superseded.
//
// # Frames
//
// An object is frames, one per chunk of 64 KiB of the blob, the last one shorter:
//
//	chunk | salt, 8 bytes | tag, 16 bytes
//
// The tag is GMAC (AES-256-GCM of no plaintext) over the chunk. Its key is derived by
// HKDF-SHA256 from the cluster's secret, the digest, the blob's size and the
// generation; its nonce is the salt, drawn at random for each writing of an object,
// and the chunk's number. So a key and a nonce are never used for two messages, not
// even when an object is written again, and a chunk proves that it is this one of
// this object: a range of a blob is one range of the object, each chunk of it is
// verified before it is given out, what was cut or moved shows, and who can write to
// the store but has not the secret can plant nothing. An empty blob is one frame of
// an empty chunk.
//
// Tags say that a replica wrote the bytes. That they were the digest's is what the
// writer looked at: Put reads all of a blob, and what has not the digest is not
// stored.
//
// # When the store is away
//
// After an error of the store calls fail at once with ErrAway, for a second first and
// up to half a minute later; then one call at a time finds out whether it is back.
// Reading and writing are apart there: a disk that is full is read all the same. One
// object that can not be read by itself is ErrUnreadable, and the store is not away for
// that; a 404 that is not S3's says nothing of an object, and it is.
package tier

// Package fill brings blobs from their upstream into the cache, each byte once
// whatever the number of those who want it.
//
// A Reader gives one client the bytes it asked for. What is in the cache it reads
// there; what somebody is fetching it waits for, and reads it from the file as that
// grows; what nobody fetches it has fetched. A fetch is one request for one gap, and
// belongs to no client: it goes on when the one it was begun for leaves. If it
// breaks, one of those who wait begins the next one where it ended, with its own
// Source and so with its own credentials: what an upstream refuses to one client is
// that client's error only.
//
// # What is trusted
//
// The bytes of a content that is not verified are its origin's word. A content is
// verified as soon as all of it is there, by the hash that was made while it came,
// or by reading it again if it came in pieces. A Reader of a whole blob holds the
// last bytes back until then: nobody gets the whole of a blob that is not what its
// digest says.
//
// # When the disk does not take bytes
//
// Then each reader goes on by itself, straight from its Source. That costs the
// upstream more and keeps nothing in memory.
package fill

// Package cache keeps ranges of remote blobs on the local disk: Cache.Blob
// wraps a blob.Blob so that what was read once is read from the disk.
//
// # What is fetched
//
// A read fetches the bytes it lacks (of the blob as stored in the registry,
// that is, compressed), one request for each gap, and what was fetched is held.
// Nothing is rounded, neither up nor down: how much a container start costs is
// decided by the bytes that are fetched beyond need, and what is verified below
// is verified in chunks that end at any byte, so a read that went one byte past
// the end of its own would drag in the next one.
//
// # How it is stored
//
// Each blob has a sparse file with its bytes at their own offsets, a map of
// the ranges present (package internal/presence) and a small metadata file. The
// reader gets its bytes first; one goroutine then writes them to the file, and
// then enters them into the map in memory. Meanwhile other readers are served
// from the queue. A full queue drops the store and never delays the read,
// unless the read has background priority: nobody waits for those, so they
// wait for room instead of being fetched again later.
//
// Storing before returning would be simpler: a write of 4 KiB to the page cache
// takes 3 to 4 us, little beside the network (BenchmarkStore; all of a miss but
// the network takes 1.3 us, BenchmarkMiss). But it is that fast only while
// nobody fills the disk's queue: then the kernel throttles every writer, for up
// to 200 ms at a time, and it stops when the disk does.
//
// # What is trusted after a crash
//
// A map on disk only ever speaks of data that is durable: every few seconds
// (Config.CheckpointEvery) the data of changed blobs is synced, then a
// snapshot of the map taken before replaces the older one atomically. What was
// stored since is fetched again after a crash. A map carries a checksum, the
// blob's digest and size, and the inode number of its data file; if anything
// does not fit, the blob's files are removed and it starts empty. The start
// reads metadata only, a map is loaded when its blob is first read.
//
// The bytes themselves are not hashed on the way in or out: a range can't be
// checked against the digest of its blob. So the cache keeps apart what came
// from different origins (Cache.BlobFrom), even under one digest: a registry that
// lies spoils its own images and no other's. Who verifies bytes below the cache
// (remote/blob/chunks) makes what they were verified with a part of the origin.
// Bytes damaged on the disk are caught by the checksum of the block they belong
// to in the layers above, and the blobs of this package have a method
//
//	Discard(off, n int64)
//
// with which the one who noticed drops them, so that the next read fetches
// them anew. Checksums here would have to be one for each range, or fetches
// would have to round up to whatever they cover.
//
// # What many share
//
// With Config.WholeBlobs a cache serves many who do not trust each other's registries
// (Cache.Hold, Content). What came from an origin stays its own until all of it was
// found to have the digest that was asked for; then it is kept under the digest and
// serves everybody. There it is whole or not at all: when a sector of it can't be
// read or its file was cut, the blob goes, because whatever filled the gap would
// pass for verified. Its metadata names the inode of the data, which was durable
// before there was such metadata, so a verified blob needs no map.
//
// Who stores waits for the page cache and not for the disk: MarkVerified is durable
// with the next checkpoint, which syncs the file system twice for many blobs. What a
// killed process wrote is not lost, though, as long as the kernel runs: drafts of
// the maps (draft.go) name the boot and are believed within it. They are not to be
// believed if in the same boot the disk lost writes that it had not synced.
//
// # What is given up
//
// Space is accounted for in blocks of 4 KiB, as file systems allocate it, and
// the limit holds when something is admitted. The unit of eviction is a run of
// 1 MiB of a blob, chosen by a policy of package cache/policy, and given back
// by punching a hole, after the smaller map is durable. Reads are never
// disturbed: one that overlaps an eviction notices and goes on with the origin.
// Blobs not read since the start count as one entry until they are read.
// With Config.WholeBlobs it is the blob, by removing its files, and not while
// somebody holds it.
//
// # What a failing disk costs
//
// Caching, never the read. Storing pauses and is tried again at growing
// intervals, reads fall back to the origin, Stats counts and Config.OnError is
// told once.
package cache

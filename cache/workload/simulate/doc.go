// Package simulate says what caches of registries would have done with recorded
// traffic: how often each eviction policy (package policy, the code that the caches
// themselves run) would have had what was asked for, at which size, in one level or
// two, on each node or for all of them, and what no policy could do better.
//
// A trace is decoded once (Decode), into 16 bytes for each request that counts and 9
// for each distinct object, 40 more while it is read; every simulation runs over that
// (Run). Or policies are simulated while it is read (Stream), which takes 50 bytes for
// each distinct object whatever the length. A simulated cache takes 1 byte for each
// object of the trace and 80 to 110 for each one that it holds.
//
// Replicas that share an index, each other's disks and a tier (Cluster) are simulated in
// virtual time, with what they ask of Redis; each object that the index of one knows takes
// about 150 bytes more.
//
// Recommend finds settings of the registry cache by simulating what its engine and its
// collections do, to the same hits.
package simulate

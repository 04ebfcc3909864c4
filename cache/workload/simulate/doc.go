// Package simulate says what caches of registries would have done with recorded
// traffic: how often each eviction policy (package policy, the code that the caches
// themselves run) would have had what was asked for, at which size, in one level or
// two, on each node or for all of them, and what no policy could do better.
//
// A trace is decoded once into an access of 16 bytes for each request, and about 60
// bytes for each distinct object; every simulation runs over that.
package simulate

// Package registrycache tries the program registry-cache as a whole: the real
// process between clients that look at every byte and upstreams that lie, break
// and refuse. Only its tests hold code; what they are made of is in the folders
// below, for benchmarks and the soak as well.
package registrycache

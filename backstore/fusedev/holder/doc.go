// Package holder keeps the /dev/fuse descriptor alive while no daemon runs.
//
// A holder is a tiny process: the daemon's own binary, started with a hidden
// subcommand, in a session of its own. It has the descriptor, the INIT message
// that belongs to it, and a unix socket, and does nothing but hand them out to
// root. As long as one copy of the descriptor is open the kernel keeps the
// connection, so reads that arrive while there is no daemon wait for the next
// one instead of failing.
package holder

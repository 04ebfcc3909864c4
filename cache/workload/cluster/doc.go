// Package cluster sends load from several machines as if they were one. A master
// reads what is to be sent, and deals it to clients, each of which has an engine of
// package load; what became of it comes back as it ends. Master is a load.Runner.
//
// Master and client speak over one HTTP/2 connection, on one stream of which each
// sends lines of JSON (see message). It is always encrypted, with a certificate of
// the moment if none is configured, and both sides prove that they know a secret
// by a code over the keys of this connection: nobody between them can pass for one
// to the other, and the secret is not sent. A registry's passwords go to clients.
//
// The order of a run:
//
//   - The master connects to all clients. Protocol and version must be the same.
//   - It asks each for the time, several times; the quickest answer says how far
//     the clocks are apart.
//   - It sends each the job, with the instant at which all begin, by that client's
//     clock. From then on clients measure by their monotonic clocks and tell times
//     since the start, so that the stepping of a clock in a run does nothing.
//   - Items go to clients ahead of when they are due, as many as a client said it
//     will hold. So nothing blocks the stream, and the heartbeats on it mean what
//     they say.
//   - A client from which nothing is heard for some heartbeats, or whose connection
//     ends, is lost: what it had is told as load.CauseLost, and the run goes on as
//     MasterConfig.Loss says. A client whose master is gone aborts its job and
//     waits for the next master.
package cluster

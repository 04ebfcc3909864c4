// Package proxy answers the pull part of the OCI distribution API from the
// cache, for many upstream registries at once.
//
// A request is parsed (parsePath: nothing but what the specification's grammar
// allows goes any further), routed to an upstream (package route), and allowed
// or refused by that upstream: before anything is served, a HEAD with the
// caller's own Authorization asks for the same resource (package permit). Only
// then the cache is looked at. Manifests and small blobs come from memory, blobs
// that are complete and verified from their file by sendfile, and everything
// else by way of package fill, which shares one fetch from the upstream among
// all who wait for the same bytes.
//
// What an upstream says about content is believed for nothing but this one
// caller: a digest in a header is not stored, bytes are kept under a digest
// only once they have it, and until then they belong to the upstream they came
// from. The last bytes of an answer wait for that verdict, and the length is
// stated before the first, so that no truncated or wrong answer looks complete.
//
// Credentials live as long as the request and the fetches it started. They are
// neither logged nor stored, and neither are the addresses an upstream
// redirects to.
package proxy

// Package attach makes images readable: it opens and merges their layers,
// serves them as devices, reads ahead of sequential readers, and mounts what
// is in them.
//
// An image is opened when it is attached, which takes the layers' indexes. An
// image that an earlier daemon attached is taken over without a look at its
// layers, which are then opened by the first read: a daemon's start waits for
// no registry.
//
// Each layer is read from a local file or from a registry. It can become a file
// while it is read (Attacher.UseFile); what is damaged in a file that is a copy
// of a blob is read from the registry.
//
// The kernel's readahead is off while an image is cold. Once all of it is held
// locally, kernel readahead is turned on and the daemon's own goes quiet. An image
// that is being recorded (Attacher.Record) has neither, whatever is local.
package attach

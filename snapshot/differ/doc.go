// Package differ is a containerd differ that makes overlaybd layers.
//
// Clients that make an image of a container, or of a build step, ask
// containerd's diff service what a snapshot has that its parent has not, and
// get a tar archive of files. Where the parent is an overlaybd image, a Differ
// answers with an overlaybd layer in place of it: of a writable device with
// what was written to it, of a container on overlayfs with the files in its
// upper directory, written to a device. Such a layer has annotations, and a
// chunk table. The same clients then have the layer applied to a new snapshot,
// and commit that; a Differ puts the blob there as it is.
//
// For all that is something else the error is errdefs.ErrNotImplemented, which
// makes containerd ask the next differ.
package differ

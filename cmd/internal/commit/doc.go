// Package commit makes an image of a container: the layers of the container's image
// and what the container changed, by the calls to containerd that nerdctl's commit
// makes. What the layer is, an archive of files or an overlaybd layer, is for
// containerd's diff service to say.
package commit

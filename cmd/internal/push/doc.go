// Package push makes an image that containerd has one of a registry, also where
// its layers were never transferred: an image that was pulled lazily has its
// manifest and config here, and its layers in the registry that it came from.
//
// A blob that the destination lacks is mounted from another repository of the
// same registry, else uploaded from containerd's content store, else streamed
// from the registry that has it, with nothing on disk between. Which repositories
// have it is what containerd noted when it pulled (labels
// containerd.io/distribution.source.*), and the image's own name.
//
// The tag is written when everything else is there.
package push

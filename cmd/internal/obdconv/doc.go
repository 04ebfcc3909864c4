// Package obdconv makes an overlaybd image of an ordinary one through the kernel:
// each layer's archive is unpacked, by containerd's code, into a file system that the
// kernel has mounted read-write on a device of the snapshotter, and what was written to the
// device is the layer.
//
// It is for images that are to be of ext4 or xfs, so that containers can write to
// their devices and layers can be built on them. What the kernel writes depends on
// time and chance: the same image gets another digest each time. Package convert
// makes erofs, always the same, and needs no containerd.
package obdconv

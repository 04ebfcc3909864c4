// Package snapshot is the containerd snapshotter for overlaybd images.
//
// A snapshot is one of three things. An image snapshot is an overlaybd layer:
// it has block/config.v1.json, which lists all layers of the device from the
// bottom up to it, and the device can be mounted on block/mountpoint. An
// ordinary snapshot is a layer of files in fs/, as with overlayfs; ordinary
// snapshots may lie on an image snapshot but not below one. An active or view
// snapshot is what somebody uses: overlayfs or a bind mount over the ordinary
// layers and the one mount of the image below them, which all users share.
//
// Requests are classified once, by package labels, and each class has one
// method. Names and parents are in containerd's metastore (bolt), what a layer
// is made of in files. Transactions are short; devices are attached and
// detached outside them, behind the interface Devices, in a lock per image.
// Nothing is attached before its first use, so that a registry that cannot be
// reached delays only those who read from it.
//
// Ignored, as the contract allows: the size limits
// containerd.io/snapshot/max-size and .../disk_quota (overlayfs has no quota
// of its own), and containerd.io/snapshot/{uid,gid}mapping (the capability
// remap-ids is not announced). Not announced either is rebase: a lazy layer is
// committed during Prepare and must know its parent then.
package snapshot

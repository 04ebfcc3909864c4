package config

import (
	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/cmd/internal/verdict"
	"github.com/reprise-containers/reprise/snapshot"
)

// Writable says what takes the writes of containers.
type Writable struct {
	Mode  string `toml:"rw_mode" comment:"What containers on overlaybd images write to, where their labels do not say it: \"overlayfs\" over the image, which all share; \"dir\": a writable device of their own, mounted; \"dev\": the device itself, for runtimes that mount it. Images with erofs are always written by overlayfs."`
	Layer string `toml:"layer" comment:"How a writable device is kept: \"append\": in a log, whatever is written; \"sparse\": in place."`
	Size  Size   `toml:"size" comment:"Size of a writable device that has no image below it."`
	FS    string `toml:"fs_type" comment:"File system made in such a device: type[;mount options[;mkfs options]]."`
}

func (w Writable) validate(v *verdict.Verdict) {
	v.OneOf("writable.rw_mode", w.Mode, "overlayfs", "dir", "dev")
	v.OneOf("writable.layer", w.Layer, "append", "sparse")
	v.Check(w.Size >= 16<<20 && w.Size%4096 == 0, "writable.size: must be a multiple of 4KiB and at least 16MiB")
	_, err := fusedev.ParseFileSystem(w.FS)
	v.Check(err == nil, "writable.fs_type: %v", err)
}

func defaultWritable() Writable {
	return Writable{Mode: "overlayfs", Layer: "append", Size: snapshot.DefaultVirtualSize, FS: snapshot.DefaultFS}
}

package mounter

import (
	"errors"

	"github.com/reprise-containers/reprise/backstore/fusedev/kernel"
)

// inodeBlocks is ext4's own default for the inode table blocks it reads ahead.
const inodeBlocks = 32

// readahead sets the readahead of the mount on j.Target.
func (j Job) readahead() error {
	ms, err := kernel.MountsAt(j.Target)
	if err != nil {
		return err
	}
	if len(ms) == 0 {
		return errors.New("not mounted")
	}
	m := ms[len(ms)-1]
	if !kernel.IsLoop(m.Source) {
		name, err := j.erofsName(m)
		if err != nil {
			return err
		}
		return writeNumber(kernel.BDIReadahead(name), j.ReadaheadKiB)
	}
	if m.FSType == "ext4" {
		blocks := 0
		if j.ReadaheadKiB > 0 {
			blocks = inodeBlocks
		}
		if err := writeNumber(kernel.Ext4InodeReadahead(m.Source), blocks); err != nil {
			return err
		}
	}
	return writeNumber(kernel.LoopReadahead(m.Source), j.ReadaheadKiB)
}

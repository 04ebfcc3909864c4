package ext4

// Inline returns the content of an inode that has it within.
func (i *Inode) Inline() []byte { return i.inline() }

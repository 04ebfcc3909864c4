package certs

import (
	"io/fs"
	"syscall"
)

// inode returns the number of a file.
func inode(st fs.FileInfo) uint64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}

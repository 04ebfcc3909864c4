// Package backstore opens the layers of an overlaybd image and stacks them
// into the block device they describe.
//
// A layer blob is wrapped up to three times: a tar archive (package tarblob)
// around a ZFile (package zfile) around an LSMT stream (package lsmt). Each
// wrapping but the last may be missing.
package backstore

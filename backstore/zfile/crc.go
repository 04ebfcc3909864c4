package zfile

import (
	"encoding/binary"
	"hash/crc32"
)

const (
	// blockSeed starts the checksum of every block, 0 all others.
	blockSeed = 100007

	checksumSize = 4
)

//nolint:gochecknoglobals // a constant that Go can't express
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// rawCRC returns the CRC-32C of data without inversions: the register starts
// at seed and is returned as it ends. hash/crc32 inverts before and after, so
// inverting once more on both sides undoes it.
func rawCRC(seed uint32, data []byte) uint32 {
	return ^crc32.Update(^seed, castagnoli, data)
}

// appendChecksum appends the checksum of the compressed block that starts at
// start of p.
func appendChecksum(p []byte, start int) []byte {
	return binary.LittleEndian.AppendUint32(p, rawCRC(blockSeed, p[start:]))
}

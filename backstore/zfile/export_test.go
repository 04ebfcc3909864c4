package zfile

// WriteStored writes a block that is already compressed, with its checksum;
// size is its uncompressed length.
func (z *Writer) WriteStored(stored []byte, size int) error {
	if err := z.addLength(len(stored)); err != nil {
		return err
	}
	z.input += int64(size)
	return z.write(stored)
}

// RawCRC is the checksum of the format.
var RawCRC = rawCRC

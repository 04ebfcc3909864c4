package tracelayer

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"

	"github.com/opencontainers/go-digest"
)

// The format is described in docs/trace.md.
const (
	planMagic      = "reprise.plan"
	planVersion    = 1
	planHashSHA256 = 1

	planHeaderSize = 32
	planLayerSize  = 32 + 8
	planMinExtent  = 4 + 32 // four varints of one byte, and the sum
	planTrailer    = 4
)

// Encode returns p in the form that DecodePlan reads. It is an error if p is not
// valid.
func (p *Plan) Encode() ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	b := make([]byte, planHeaderSize, planHeaderSize+len(p.Layers)*planLayerSize+len(p.Extents)*(planMinExtent+6)+planTrailer)
	copy(b, planMagic)
	le.PutUint16(b[12:], planVersion)
	b[14] = planHashSHA256
	le.PutUint32(b[16:], uint32(len(p.Layers)))
	le.PutUint32(b[20:], uint32(len(p.Extents)))
	le.PutUint64(b[24:], uint64(p.DataSize()))
	for _, l := range p.Layers {
		sum, err := hex.DecodeString(l.Digest.Encoded())
		if err != nil {
			return nil, fmt.Errorf("encoding digest %s: %w", l.Digest, err)
		}
		b = append(b, sum...)
		b = le.AppendUint64(b, uint64(l.Size))
	}
	ends := make([]int64, len(p.Layers))
	for _, e := range p.Extents {
		b = binary.AppendUvarint(b, uint64(e.Layer))
		b = binary.AppendVarint(b, e.Off-ends[e.Layer])
		b = binary.AppendUvarint(b, uint64(e.Size))
		b = binary.AppendUvarint(b, uint64(e.Size-e.Stored))
		b = append(b, e.Sum[:]...)
		ends[e.Layer] = e.Off + e.Size
	}
	b = le.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if len(b) > MaxPlan {
		return nil, fmt.Errorf("plan has %d bytes, more than %d", len(b), MaxPlan)
	}
	return b, nil
}

// DecodePlan decodes a plan. What it returns is valid (Plan.Validate), and
// encodes to data again.
func DecodePlan(data []byte) (*Plan, error) {
	le := binary.LittleEndian
	switch {
	case len(data) < planHeaderSize+planTrailer || string(data[:len(planMagic)]) != planMagic:
		return nil, fmt.Errorf("not a plan: wrong magic")
	case len(data) > MaxPlan:
		return nil, fmt.Errorf("plan has %d bytes, more than %d", len(data), MaxPlan)
	}
	if v := le.Uint16(data[12:]); v != planVersion {
		return nil, fmt.Errorf("plan has version %d, known is %d", v, planVersion)
	}
	if data[14] != planHashSHA256 || data[15] != 0 {
		return nil, fmt.Errorf("plan has hash %d and reserved byte %d, known are %d and 0", data[14], data[15], planHashSHA256)
	}
	body := data[:len(data)-planTrailer]
	if sum, want := crc32.Checksum(body, castagnoli), le.Uint32(data[len(body):]); sum != want {
		return nil, fmt.Errorf("plan has checksum %#08x, its end says %#08x", sum, want)
	}
	d := planDecoder{rest: body[planHeaderSize:]}
	p := &Plan{}
	d.layers(p, le.Uint32(data[16:]))
	d.extents(p, le.Uint32(data[20:]))
	if d.err == nil && len(d.rest) != 0 {
		d.fail("%d bytes behind its extents", len(d.rest))
	}
	if d.err != nil {
		return nil, fmt.Errorf("decoding plan: %w", d.err)
	}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if n, want := uint64(p.DataSize()), le.Uint64(data[24:]); n != want {
		return nil, fmt.Errorf("plan has %d bytes of data, its header says %d", n, want)
	}
	return p, nil
}

// planDecoder takes a plan off rest from its start. After the first error, err,
// it returns zeros.
type planDecoder struct {
	rest []byte
	err  error
}

func (d *planDecoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
	d.rest = nil
}

// layers decodes n layers. Numbers are compared with what the bytes can hold
// before anything is allocated.
func (d *planDecoder) layers(p *Plan, n uint32) {
	if n > MaxPlanLayers || int(n) > len(d.rest)/planLayerSize {
		d.fail("%d layers are too many, or do not fit %d bytes", n, len(d.rest))
		return
	}
	p.Layers = make([]PlanLayer, n)
	for i := range p.Layers {
		b := d.take(planLayerSize)
		size := binary.LittleEndian.Uint64(b[32:])
		if size > MaxLayerSize {
			d.fail("layer %d has %d bytes, more than %d", i, size, int64(MaxLayerSize))
			return
		}
		p.Layers[i] = PlanLayer{Digest: digest.NewDigestFromBytes(digest.SHA256, b[:32]), Size: int64(size)}
	}
}

// extents decodes n extents of the layers of p.
func (d *planDecoder) extents(p *Plan, n uint32) {
	if n > MaxExtents || int(n) > len(d.rest)/planMinExtent {
		d.fail("%d extents are too many, or do not fit %d bytes", n, len(d.rest))
	}
	if d.err != nil {
		return
	}
	p.Extents = make([]Extent, n)
	ends := make([]int64, len(p.Layers))
	for i := range p.Extents {
		e := &p.Extents[i]
		layer := d.uvarint()
		if layer >= uint64(len(ends)) {
			d.fail("extent %d is of layer %d, there are %d", i, layer, len(ends))
			return
		}
		delta, size, saved := d.varint(), d.uvarint(), d.uvarint()
		copy(e.Sum[:], d.take(len(e.Sum)))
		switch {
		case size < 1 || size > MaxExtent || saved > size:
			d.fail("extent %d has %d bytes, %d less in the data", i, size, saved)
		case delta < -MaxLayerSize || delta > MaxLayerSize:
			d.fail("extent %d begins %d bytes from the one before it", i, delta)
		}
		if d.err != nil {
			return
		}
		e.Layer, e.Off, e.Size, e.Stored = int(layer), ends[layer]+delta, int64(size), int64(size-saved)
		// In bounds now, so that no sum of such numbers overflows.
		if err := p.validateExtent(*e); err != nil {
			d.fail("extent %d: %w", i, err)
			return
		}
		ends[layer] = e.Off + e.Size
	}
}

// take returns the next n bytes.
func (d *planDecoder) take(n int) []byte {
	if len(d.rest) < n {
		d.fail("it ends early")
		return make([]byte, n)
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

// uvarint decodes a number that is written with no more bytes than it needs, as
// a plan has only one encoding.
func (d *planDecoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || n > 1 && d.rest[n-1] == 0 {
		d.fail("a number is too long or ends early")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// varint decodes a number with a sign, zigzag encoded.
func (d *planDecoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

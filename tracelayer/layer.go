package tracelayer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
)

// Names of the members of a trace layer, which are files once it is unpacked.
const (
	SlotName = "trace"
	PlanName = "trace.plan"
	DataName = "trace.data"
)

const tarBlock = 512

// maxTarSize is the largest member that a plain tar header can describe.
const maxTarSize = 1<<33 - 1

// Contents is what a trace layer is made of.
type Contents struct {
	// Slot is a trace file or a priority list: all that upstream looks at.
	Slot []byte
	// Plan is the encoded plan, or nil.
	Plan []byte
	// Data are the DataSize bytes of the plan's data, nil if it has none.
	Data     io.Reader
	DataSize int64
}

// LayerInfo describes a trace layer that was written.
type LayerInfo struct {
	Digest digest.Digest // also its DiffID: it is not compressed
	Size   int64         // bytes
	Plan   Member        // zero if there is none
}

// WriteLayer writes a trace layer to w. With nothing but a slot it is what
// upstream would write.
func WriteLayer(w io.Writer, c Contents) (LayerInfo, error) {
	if err := c.validate(); err != nil {
		return LayerInfo{}, fmt.Errorf("writing trace layer: %w", err)
	}
	sums := digest.SHA256.Digester()
	out := &counter{w: io.MultiWriter(w, sums.Hash())}
	info, err := c.write(out)
	if err != nil {
		return LayerInfo{}, fmt.Errorf("writing trace layer: %w", err)
	}
	info.Digest, info.Size = sums.Digest(), out.n
	return info, nil
}

func (c Contents) validate() error {
	switch {
	case len(c.Slot) == 0:
		return errors.New("there is neither a trace nor a list")
	case len(c.Slot) > MaxSlot:
		return fmt.Errorf("trace has %d bytes, more than %d", len(c.Slot), MaxSlot)
	case len(c.Plan) > MaxPlan:
		return fmt.Errorf("plan has %d bytes, more than %d", len(c.Plan), MaxPlan)
	case c.DataSize < 0 || c.DataSize > maxTarSize:
		return fmt.Errorf("%d bytes of data are not within 0 and %d", c.DataSize, int64(maxTarSize))
	case c.Data == nil && c.DataSize != 0:
		return fmt.Errorf("there are no data, though %d bytes of them", c.DataSize)
	case c.Plan == nil && c.DataSize != 0:
		return errors.New("there are data without a plan")
	}
	return nil
}

func (c Contents) write(out *counter) (LayerInfo, error) {
	var info LayerInfo
	tw := tar.NewWriter(out)
	if err := member(tw, SlotName, int64(len(c.Slot))); err != nil {
		return info, err
	}
	if _, err := tw.Write(c.Slot); err != nil {
		return info, err
	}
	if c.Plan != nil {
		if err := member(tw, PlanName, int64(len(c.Plan))); err != nil {
			return info, err
		}
		info.Plan = Member{Offset: out.n, Size: int64(len(c.Plan)), Digest: digest.FromBytes(c.Plan)}
		if _, err := tw.Write(c.Plan); err != nil {
			return info, err
		}
	}
	if c.DataSize != 0 {
		if err := member(tw, DataName, c.DataSize); err != nil {
			return info, err
		}
		if _, err := io.CopyN(tw, c.Data, c.DataSize); err != nil {
			return info, fmt.Errorf("copying %d bytes of data: %w", c.DataSize, err)
		}
	}
	return info, tw.Close()
}

// member begins a member: no owner and no time, as upstream writes its one, and
// in one block, on which DataOffset relies.
func member(tw *tar.Writer, name string, size int64) error {
	return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o444, Size: size, Format: tar.FormatUSTAR})
}

// DataOffset returns where in the blob of a trace layer the data begin, bytes,
// given where its plan lies: they are the next member.
func DataOffset(m Member) int64 {
	end := m.Offset + m.Size
	return (end+tarBlock-1)/tarBlock*tarBlock + tarBlock
}

// counter counts what is written through it.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

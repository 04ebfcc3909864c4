package sectors

import (
	"fmt"
	"strings"
)

// State is what a check found on a disk: the operation on each sector.
type State struct {
	seq []uint32
	// Newer is the number of sectors above the floor.
	Newer int
}

// mostFaults is how many faults an error names.
const mostFaults = 10

// FaultError says what is wrong with a disk.
type FaultError struct {
	// Sectors is how many are wrong.
	Sectors int
	// First describes the first of them.
	First []string
}

func (e *FaultError) Error() string {
	return fmt.Sprintf("%d sectors are wrong:\n  %s", e.Sectors, strings.Join(e.First, "\n  "))
}

func (e *FaultError) add(sector int64, why string) {
	if e.Sectors++; len(e.First) < mostFaults {
		e.First = append(e.First, fmt.Sprintf("sector %d: %s", sector, why))
	}
}

// Check reads a disk, or a picture of it, and compares it with the floor: each
// sector must hold what the floor says, or anything later that was begun. It
// returns a *FaultError if one does not. The load may go on meanwhile; a floor
// must have been taken before the picture.
func (l *Load) Check(r Reader, f Floor) (*State, error) {
	const step = 1 << 20
	s := &State{seq: make([]uint32, l.size/Size)}
	faults := &FaultError{}
	buf, want := aligned(step), make([]byte, Size)
	for i, w := range l.workers {
		v := w.verifier(f[i])
		for at := int64(0); at < w.n; at += step / Size {
			p := buf[:min(step, (w.n-at)*Size)]
			if err := r.ReadAt(p, (w.first+at)*Size); err != nil {
				return nil, fmt.Errorf("reading %d bytes at sector %d: %w", len(p), w.first+at, err)
			}
			for j := range int64(len(p)) / Size {
				sector := w.first + at + j
				seq, why := v.judge(identify(p[j*Size:][:Size], want, l.seed), sector)
				if why != "" {
					faults.add(sector, why)
				}
				if s.seq[sector] = seq; seq > f[i].seq[at+j] {
					s.Newer++
				}
			}
		}
	}
	if faults.Sectors > 0 {
		return nil, faults
	}
	return s, nil
}

// verifier judges the sectors of a region.
type verifier struct {
	worker uint32
	first  int64
	floor  floor
	log    []op
	zeroed []uint32 // of each sector the last operation above the floor that zeroes it
}

func (w *worker) verifier(f floor) *verifier {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := &verifier{w.id, w.first, f, w.log[:len(w.log):len(w.log)], make([]uint32, w.n)}
	for i, o := range v.log[f.since+1:] {
		if o.kind == Discard || o.kind == Zero {
			for j := range int64(o.n) {
				v.zeroed[int64(o.sector)-w.first+j] = f.since + 1 + uint32(i)
			}
		}
	}
	return v
}

// expected says what may be on a sector.
func (v *verifier) expected(sector int64) string {
	least := v.floor.seq[sector-v.first]
	text := fmt.Sprintf("want %s %d", v.log[least].kind, least)
	for i, o := range v.log[v.floor.since+1:] {
		if o.covers(sector) {
			text += fmt.Sprintf(" or %s %d", o.kind, int(v.floor.since)+1+i)
		}
	}
	return text
}

// judge returns which operation a sector is of, and what is wrong with it.
func (v *verifier) judge(c content, sector int64) (uint32, string) {
	at := sector - v.first
	least := v.floor.seq[at]
	wrong := ""
	switch {
	case c.kind == foreign:
		wrong = "neither zeros nor written by this load"
	case c.kind == torn:
		wrong = fmt.Sprintf("torn: the header of write %d by %d of sector %d", c.seq, c.worker, c.sector)
	case c.kind == zeros && v.zeroed[at] > 0:
		return v.zeroed[at], ""
	case c.kind == zeros && v.log[least].kind != Write:
		return least, ""
	case c.kind == zeros:
		wrong = "zeros"
	case c.sector != sector || c.worker != v.worker:
		wrong = fmt.Sprintf("holds write %d by %d of sector %d", c.seq, c.worker, c.sector)
	case int(c.seq) >= len(v.log) || v.log[c.seq].kind != Write || !v.log[c.seq].covers(sector):
		wrong = fmt.Sprintf("holds write %d, which was never made there", c.seq)
	case c.seq != least && c.seq <= v.floor.since:
		wrong = fmt.Sprintf("holds write %d, which is older", c.seq)
	default:
		return c.seq, ""
	}
	return 0, wrong + ", " + v.expected(sector)
}

package policy

// Ghosts returns how many names of entries given up p remembers.
func Ghosts[K comparable](p Policy[K]) int {
	switch p := p.(type) {
	case *S3FIFO[K]:
		return len(p.nodes) - p.Len()
	case *TwoQ[K]:
		return len(p.nodes) - p.Len()
	case *ARC[K]:
		return len(p.nodes) - p.Len()
	}
	return 0
}

// Sketch counts uses of keys.
type Sketch struct{ s *sketch[string] }

// NewSketch returns an empty sketch of strings.
func NewSketch() Sketch { return Sketch{newSketch[string]()} }

// Add counts a use of key while held entries are held.
func (s Sketch) Add(key string, held int) { s.s.add(key, held) }

// Count returns how often key was used.
func (s Sketch) Count(key string) int { return int(s.s.count(key)) }

// Columns returns how many counters there are in a row.
func (s Sketch) Columns() int { return len(s.s.rows[0]) }

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

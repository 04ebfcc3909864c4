package trace

// heap has the least of its elements first. Unlike container/heap it does not
// allocate for each of them.
type heap[T any] struct {
	a    []T
	less func(a, b *T) bool
}

func (h *heap[T]) push(x T) {
	h.a = append(h.a, x)
	for i := len(h.a) - 1; i > 0; {
		up := (i - 1) / 2
		if !h.less(&h.a[i], &h.a[up]) {
			break
		}
		h.a[i], h.a[up] = h.a[up], h.a[i]
		i = up
	}
}

// pop takes the least; there is one.
func (h *heap[T]) pop() T {
	var none T
	last := len(h.a) - 1
	x := h.a[0]
	h.a[0], h.a[last] = h.a[last], none
	h.a = h.a[:last]
	h.fix()
	return x
}

// fix puts the first element where it belongs, after it became greater.
func (h *heap[T]) fix() {
	for i := 0; ; {
		least := i
		for _, c := range [2]int{2*i + 1, 2*i + 2} {
			if c < len(h.a) && h.less(&h.a[c], &h.a[least]) {
				least = c
			}
		}
		if least == i {
			return
		}
		h.a[i], h.a[least] = h.a[least], h.a[i]
		i = least
	}
}

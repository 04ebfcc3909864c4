package policy

// node is an entry in one list. Its list links are its own, so that moving an
// entry allocates nothing.
type node[K comparable] struct {
	key        K
	size       int64 // bytes
	read       int64 // bytes read again since it came or was last spared
	home       *list[K]
	prev, next *node[K]
}

// list is a doubly linked list of nodes, newest at the front, that knows its
// length and bytes.
type list[K comparable] struct {
	root  node[K]
	len   int
	bytes int64
}

func newList[K comparable]() *list[K] {
	l := new(list[K])
	l.root.prev, l.root.next = &l.root, &l.root
	return l
}

// pushFront takes n, which must be in no list, as the newest.
func (l *list[K]) pushFront(n *node[K]) {
	n.home = l
	n.prev, n.next = &l.root, l.root.next
	n.prev.next, n.next.prev = n, n
	l.len++
	l.bytes += n.size
}

// remove takes n out of its list.
func (n *node[K]) remove() {
	n.prev.next, n.next.prev = n.next, n.prev
	n.prev, n.next = nil, nil
	n.home.len--
	n.home.bytes -= n.size
	n.home = nil
}

// take moves n from its list to l, as the newest.
func (l *list[K]) take(n *node[K]) {
	n.remove()
	l.pushFront(n)
}

// grow changes the size of n by d bytes, not below zero.
func (n *node[K]) grow(d int64) {
	d = max(d, -n.size)
	n.size += d
	n.home.bytes += d
}

// back returns the oldest node, nil when the list is empty.
func (l *list[K]) back() *node[K] {
	if l.len == 0 {
		return nil
	}
	return l.root.prev
}

// uses returns how many times over n was read since it came or was spared.
func (n *node[K]) uses() int64 { return uses(n.read, n.size) }

// uses returns how many times over an entry of size bytes was used of which read
// bytes were read. One that was read by three quarters was used: sizes are rounded
// and readers skip.
func uses(read, size int64) int64 {
	if size <= 0 {
		return 0
	}
	return (read + size/4) / size
}

// used counts bytes read from n and reports whether it was used once more.
func (n *node[K]) used(bytes int64) bool {
	n.read += bytes
	times := n.uses()
	n.read = max(0, n.read-times*n.size)
	return times > 0
}

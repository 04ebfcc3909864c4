package permit

import (
	"container/list"
	"time"
)

// answer is what an upstream said to a caller about a resource.
type answer struct {
	id   id
	d    Decision
	sent time.Time // when it was asked
	end  time.Time // of the credential; zero if that does not say
	used *list.Element
}

// maxAnswer bounds the bytes of text in an answer that is kept. Callers and
// upstreams choose most of it.
const maxAnswer = 4 << 10

// small reports whether the answer is within maxAnswer.
func (a *answer) small() bool {
	r := a.id.resource()
	n := len(r.Target.Host) + len(r.Repository) + len(r.Kind) + len(r.Reference) + len(r.Accept) +
		len(a.d.Body) + len(a.d.Descriptor.MediaType) + len(a.d.Descriptor.Digest)
	for _, values := range a.d.Header {
		for _, v := range values {
			n += len(v) + 16
		}
	}
	return n <= maxAnswer
}

// store keeps answers, by scope, of which the ones not used for longest make room.
// Its user locks it.
type store struct {
	max    int
	scopes map[scope]map[item]*answer
	order  list.List // of *answer, the last used first
}

func newStore(limit int) *store { return &store{max: limit, scopes: make(map[scope]map[item]*answer)} }

func (s *store) len() int { return s.order.Len() }

// find returns the answer for k, or nil.
func (s *store) find(k *id) *answer {
	a := s.scopes[k.scope][k.item]
	if a != nil {
		s.order.MoveToFront(a.used)
	}
	return a
}

// put keeps an answer in place of an earlier one, and returns how many others made
// room for it.
func (s *store) put(a *answer) (evicted int) {
	if old := s.scopes[a.id.scope][a.id.item]; old != nil {
		s.drop(old)
	}
	a.id = a.id.clone()
	items := s.scopes[a.id.scope]
	if items == nil {
		items = make(map[item]*answer, 1)
		s.scopes[a.id.scope] = items
	}
	items[a.id.item] = a
	a.used = s.order.PushFront(a)
	for s.order.Len() > s.max {
		s.drop(s.order.Back().Value.(*answer))
		evicted++
	}
	return evicted
}

// drop forgets an answer that is kept.
func (s *store) drop(a *answer) {
	s.order.Remove(a.used)
	items := s.scopes[a.id.scope]
	if delete(items, a.id.item); len(items) == 0 {
		delete(s.scopes, a.id.scope)
	}
}

// revoke forgets the permissions of a scope, and returns how many.
func (s *store) revoke(sc *scope) (n int) {
	for _, a := range s.scopes[*sc] {
		if a.d.Allowed() {
			s.drop(a)
			n++
		}
	}
	return n
}

// forget forgets what match is true for.
func (s *store) forget(match func(Resource) bool) (n int) {
	for e := s.order.Front(); e != nil; {
		a := e.Value.(*answer)
		e = e.Next()
		if match == nil || match(a.id.resource()) {
			s.drop(a)
			n++
		}
	}
	return n
}

package simulate

import "github.com/reprise-containers/reprise/cache/policy"

// nodeStore is a store of few objects of many: one of thousands of nodes, or one of
// the replicas of a cluster. It takes no memory for what it does not have.
type nodeStore struct {
	policy   policy.Policy[uint32]
	expects  policy.Expectant[uint32] // the policy, if it wants to know for whom room is made
	capacity int64
	have     map[uint32]struct{}
	evicted  uint64
	onEvict  func(id uint32) // nil: nothing is to be done
}

func newNodeStore(name string, capacity int64) (*nodeStore, error) {
	p, err := policy.New[uint32](name)
	if err != nil {
		return nil, err
	}
	expects, _ := p.(policy.Expectant[uint32])
	return &nodeStore{policy: p, expects: expects, capacity: capacity, have: make(map[uint32]struct{})}, nil
}

func (s *nodeStore) has(id uint32) bool {
	_, ok := s.have[id]
	return ok
}

// get reports whether the object is there, and takes it in if not.
func (s *nodeStore) get(id uint32, size int64) bool {
	if s.has(id) {
		s.policy.Touch(id, size)
		return true
	}
	s.put(id, size)
	return false
}

// put makes room for the object, which is not there, and takes it in. What is larger
// than the cache goes by it.
func (s *nodeStore) put(id uint32, size int64) {
	if size > s.capacity {
		return
	}
	if s.expects != nil && s.policy.Bytes()+size > s.capacity {
		s.expects.Expect(id)
	}
	s.evictTo(s.capacity - size)
	s.have[id] = struct{}{}
	s.policy.Add(id, size)
}

// evictTo gives up objects until no more than goal is used.
func (s *nodeStore) evictTo(goal int64) {
	for s.policy.Bytes() > goal {
		v, _, ok := s.policy.Victim()
		if !ok {
			return
		}
		delete(s.have, v)
		s.evicted++
		if s.onEvict != nil {
			s.onEvict(v)
		}
	}
}

// grow says that the object turned out to be larger.
func (s *nodeStore) grow(id uint32, from, to int64) {
	if !s.has(id) {
		return
	}
	s.policy.Add(id, to-from)
	s.evictTo(s.capacity)
}

package simulate

import "github.com/reprise-containers/reprise/cache/policy"

// store is a cache of objects: a policy, and what it is told.
type store struct {
	policy   policy.Policy[uint32]
	expects  policy.Expectant[uint32] // the policy, if it wants to know for whom room is made
	capacity int64
	used     int64
	disk     bool // objects take what the registry cache charges for them
	have     []bool
	evicted  uint64
	tooLarge uint64
	onEvict  func(id uint32, size int64) // nil: nothing is to be done
}

func newStore(name string, capacity int64, objects int) (*store, error) {
	p, err := policy.New[uint32](name)
	if err != nil {
		return nil, err
	}
	expects, _ := p.(policy.Expectant[uint32])
	return &store{policy: p, expects: expects, capacity: capacity, have: make([]bool, objects)}, nil
}

// What the registry cache charges for an object beside its bytes, see package cache.
const (
	diskBlock = 4096
	diskRun   = 1 << 20
	perRun    = 512
	perObject = 2 * diskBlock
)

// room returns what an object of a size takes of the capacity.
func (s *store) room(size int64) int64 {
	if !s.disk {
		return size
	}
	return (size+diskBlock-1)/diskBlock*diskBlock + (size+diskRun-1)/diskRun*perRun + perObject
}

// get reports whether the object is there, and takes it in if not.
func (s *store) get(id uint32, size int64) bool {
	if s.have[id] {
		s.policy.Touch(id, size)
		return true
	}
	s.put(id, size)
	return false
}

// put makes room for the object and takes it in. What is larger than the cache goes
// by it.
func (s *store) put(id uint32, size int64) {
	need := s.room(size)
	if need > s.capacity {
		s.tooLarge++
		return
	}
	if s.used+need > s.capacity {
		goal := s.capacity
		if s.disk { // so does the registry cache, to wait for the disk less often
			goal -= min(s.capacity/64, 16<<20) / diskBlock * diskBlock
		}
		// The engine does not say for whom it makes room, and disk is to have its hits.
		if s.expects != nil && !s.disk {
			s.expects.Expect(id)
		}
		s.evictTo(max(0, goal-need))
	}
	s.have[id] = true
	s.used += need
	s.policy.Add(id, size)
}

// evictTo gives up objects until no more than goal is used.
func (s *store) evictTo(goal int64) {
	for s.used > goal {
		id, size, ok := s.policy.Victim()
		if !ok {
			return
		}
		s.have[id] = false
		s.used -= s.room(size)
		s.evicted++
		if s.onEvict != nil {
			s.onEvict(id, size)
		}
	}
}

// remove forgets the object, which is there.
func (s *store) remove(id uint32, size int64) {
	s.policy.Remove(id)
	s.have[id] = false
	s.used -= s.room(size)
}

// grow says that the object turned out to be larger.
func (s *store) grow(id uint32, from, to int64) {
	if !s.have[id] {
		return
	}
	s.policy.Add(id, to-from)
	s.used += s.room(to) - s.room(from)
	s.evictTo(s.capacity)
}

package cluster

import (
	"bytes"
	"context"
	"io"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// Path is what a master posts to.
const Path = path

// Hold sets how many items a client holds.
func (c *ClientConfig) Hold(window int) { c.window = window }

// Ahead sets how far a client's clock is ahead of the machine's.
func (c *ClientConfig) Ahead(d time.Duration) { c.ahead = d }

// Receive reads all messages of a stream and returns how many there were.
func Receive(stream []byte, limit int) (int, error) {
	w := newWire(bytes.NewReader(stream), io.Discard, nil)
	for n := 0; ; n++ {
		if _, err := w.receive(limit); err != nil {
			return n, err
		}
	}
}

// Hear has a master that gave a client so many items hear a stream of it. It returns
// how often the sink was told of an item.
func Hear(ctx context.Context, items int, stream []byte) (told int, err error) {
	m := &Master{
		cfg: MasterConfig{}.withDefaults(), clock: newClock(0), space: make(chan struct{}, 1),
		sink: func(load.Result) { told++ },
	}
	l := newLink(m, "127.0.0.1:1")
	ctx, l.cut = context.WithCancelCause(ctx)
	defer l.cut(nil)
	l.wire = newWire(bytes.NewReader(stream), io.Discard, nil)
	for i := range items {
		l.push(load.Item{Seq: uint64(i)})
	}
	l.finish()
	if err = l.hear(ctx); err != nil {
		l.lose(err)
	}
	return told, err
}

// Inherit has a client that was not sent its own items yet inherit others, and returns
// the numbers of all that it is to be sent. With finished, no more will be pushed.
func Inherit(own, others []uint64, finished bool) (all []uint64, ok bool) {
	m, err := New(MasterConfig{Clients: []string{"127.0.0.1:1"}})
	if err != nil {
		return nil, false
	}
	l := m.links[0]
	l.status.State = Ready
	for _, seq := range own {
		l.push(load.Item{Seq: seq})
	}
	if finished {
		l.finish()
		l.next() // without credit
	}
	var items []load.Item
	for _, seq := range others {
		items = append(items, load.Item{Seq: seq})
	}
	ok = l.inherit(items)
	for _, it := range l.pending {
		all = append(all, it.Seq)
	}
	return all, ok && len(l.open) == len(all) && m.queued.Load() == int64(len(all)) && l.status.Items == uint64(len(all))
}

package store

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
)

const (
	pipeChunk = 256 << 10
	pipeDepth = 12
)

// fan reads ahead in a goroutine of its own, through a fixed number of
// buffers, and hands every buffer to two others: one that looks at all bytes
// (hashes them, writes them), and the caller, who parses them.
type fan struct {
	main, side, free chan *chunk
	quit             chan struct{}
	readEnd, sideEnd chan struct{}
	readErr, sideErr error
	cur              *chunk
	rest             []byte
}

type chunk struct {
	buf  []byte // of full capacity
	n    int
	refs atomic.Int32
}

// through reads r to its end: parse gets a reader of it, and watch, in a
// goroutine of its own, all its bytes, also those that parse leaves. Check is
// told the number of bytes so far and may refuse more. Nobody uses r when
// through returns.
func through(ctx context.Context, r io.Reader, check func(total int64) error, watch func([]byte) error, parse func(io.Reader) error) error {
	f := &fan{
		main: make(chan *chunk, pipeDepth), side: make(chan *chunk, pipeDepth), free: make(chan *chunk, pipeDepth),
		quit: make(chan struct{}), readEnd: make(chan struct{}), sideEnd: make(chan struct{}),
	}
	for range pipeDepth {
		f.free <- &chunk{}
	}
	go f.read(ctx, r, check)
	go f.watch(watch)
	err := parse(f)
	if err == nil {
		// What follows the end of an archive belongs to the stream, too.
		_, err = io.Copy(io.Discard, f)
	}
	close(f.quit)
	<-f.readEnd
	<-f.sideEnd
	// The first to fail is the one that the others fell over.
	if f.sideErr != nil {
		return f.sideErr
	}
	return err
}

func (f *fan) read(ctx context.Context, r io.Reader, check func(int64) error) {
	defer close(f.readEnd)
	defer close(f.side)
	defer close(f.main)
	var total int64
	for {
		var c *chunk
		select {
		case c = <-f.free:
		case <-f.quit:
			return
		case <-f.sideEnd: // it failed
			return
		case <-ctx.Done():
			f.readErr = context.Cause(ctx)
			return
		}
		if c.buf == nil { // small streams need few
			c.buf = make([]byte, pipeChunk)
		}
		c.n = 0
		var err error
		for c.n < len(c.buf) && err == nil {
			var n int
			n, err = r.Read(c.buf[c.n:])
			c.n += n
		}
		total += int64(c.n)
		if err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			if cerr := check(total); cerr != nil {
				err = cerr
			}
		}
		if c.n > 0 {
			c.refs.Store(2)
			f.side <- c // never blocks: there are as many places as buffers
			f.main <- c
		}
		if err != nil {
			if !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				f.readErr = err
			}
			return
		}
	}
}

func (f *fan) watch(watch func([]byte) error) {
	defer close(f.sideEnd)
	for c := range f.side {
		if f.sideErr = watch(c.buf[:c.n]); f.sideErr != nil {
			return
		}
		f.release(c)
	}
}

func (f *fan) release(c *chunk) {
	if c.refs.Add(-1) == 0 {
		f.free <- c
	}
}

// next makes the next buffer the current one.
func (f *fan) next() error {
	if f.cur != nil {
		f.release(f.cur)
		f.cur = nil
	}
	c, ok := <-f.main
	if !ok {
		if f.readErr != nil {
			return f.readErr
		}
		return io.EOF
	}
	f.cur, f.rest = c, c.buf[:c.n]
	return nil
}

func (f *fan) Read(b []byte) (int, error) {
	for len(f.rest) == 0 {
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

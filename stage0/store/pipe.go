package store

import (
	"context"
	"errors"
	"hash"
	"io"
	"os"
)

const (
	pipeChunk = 256 << 10
	pipeDepth = 8
)

// pipe reads ahead in a goroutine, through a fixed number of buffers.
type pipe struct {
	full, free chan []byte
	quit       chan struct{}
	ended      chan struct{}
	cur, rest  []byte
	err        error // of the goroutine; read after full is closed
}

func startPipe(ctx context.Context, r io.Reader, check func(total int64) error) *pipe {
	p := &pipe{
		full: make(chan []byte, pipeDepth), free: make(chan []byte, pipeDepth),
		quit: make(chan struct{}), ended: make(chan struct{}),
	}
	for range pipeDepth {
		p.free <- make([]byte, pipeChunk)
	}
	go p.run(ctx, r, check)
	return p
}

func (p *pipe) run(ctx context.Context, r io.Reader, check func(int64) error) {
	defer close(p.ended)
	defer close(p.full)
	var total int64
	for {
		var buf []byte
		select {
		case buf = <-p.free:
		case <-p.quit:
			return
		case <-ctx.Done():
			p.err = context.Cause(ctx)
			return
		}
		n, err := 0, error(nil)
		for n < len(buf) && err == nil {
			var m int
			m, err = r.Read(buf[n:])
			n += m
		}
		total += int64(n)
		if n > 0 {
			p.full <- buf[:n] // never blocks: there are as many places as buffers
		}
		if err == nil {
			err = check(total)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				p.err = err
			}
			return
		}
	}
}

func (p *pipe) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.cur != nil {
			p.free <- p.cur[:cap(p.cur)]
			p.cur = nil
		}
		buf, ok := <-p.full
		if !ok {
			if p.err != nil {
				return 0, p.err
			}
			return 0, io.EOF
		}
		p.cur, p.rest = buf, buf
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// stop ends the goroutine and waits for it: its reader must not be used after.
func (p *pipe) stop() {
	close(p.quit)
	<-p.ended
}

// sink gathers small writes and gives them to a file and a hash.
type sink struct {
	file *os.File
	hash hash.Hash
	n    int64
	buf  []byte
}

func (s *sink) Write(b []byte) (int, error) {
	s.n += int64(len(b))
	if len(s.buf)+len(b) > pipeChunk {
		if err := s.flush(); err != nil {
			return 0, err
		}
	}
	if len(b) >= pipeChunk {
		return len(b), s.emit(b)
	}
	if s.buf == nil {
		s.buf = make([]byte, 0, pipeChunk)
	}
	s.buf = append(s.buf, b...)
	return len(b), nil
}

func (s *sink) flush() error {
	err := s.emit(s.buf)
	s.buf = s.buf[:0]
	return err
}

func (s *sink) emit(b []byte) error {
	s.hash.Write(b)
	_, err := s.file.Write(b)
	return err
}

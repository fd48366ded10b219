package tree

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/rkt-systemd/rkt/internal/appc"
)

// extract extracts one layer's rootfs. The store's files can be replaced by
// every member of its group, a tree by root alone: so the blob is hashed again
// while it is read, and its own manifest, which is returned, must be the one
// that the plan was made from.
func (t *Trees) extract(ctx context.Context, x *extractor, l layer) ([]byte, error) {
	b, err := t.store.ReadBlob(l.key)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	alias := map[string]string{}
	if len(l.lists) > 0 {
		if alias, err = t.aliases(ctx, l); err != nil {
			return nil, err
		}
	}
	h := newAsyncHash(sha512.New())
	defer h.close()
	in := io.TeeReader(b, h)
	x.manifest = nil
	if err := x.image(ctx, in, l.lists, alias); err != nil {
		return nil, err
	}
	if _, err := io.CopyBuffer(io.Discard, onlyReader{in}, x.buf); err != nil {
		return nil, err
	}
	if id := appc.HashPrefix + hex.EncodeToString(h.sum()); appc.Key(id) != l.key {
		return nil, fmt.Errorf("the stored image is damaged: its content has the ID %q", id)
	}
	if l.manifest != nil && !bytes.Equal(l.manifest, x.manifest) { // nil: there was no plan
		return nil, errors.New("the stored manifest is not the image's own")
	}
	return x.manifest, nil
}

// aliases reads a layer for its hard links alone.
func (t *Trees) aliases(ctx context.Context, l layer) (map[string]string, error) {
	b, err := t.store.ReadBlob(l.key)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return aliases(ctx, b, l.lists)
}

const (
	hashChunk  = 256 << 10
	hashChunks = 8
)

// asyncHash hashes what is written to it in a goroutine of its own.
type asyncHash struct {
	h          hash.Hash
	full, free chan []byte
	done       chan struct{}
	closed     bool
}

func newAsyncHash(h hash.Hash) *asyncHash {
	a := &asyncHash{h: h, full: make(chan []byte, hashChunks), free: make(chan []byte, hashChunks), done: make(chan struct{})}
	for range hashChunks {
		a.free <- nil // made when needed
	}
	go func() {
		defer close(a.done)
		for b := range a.full {
			a.h.Write(b)
			a.free <- b
		}
	}()
	return a
}

func (a *asyncHash) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		b := <-a.free
		if b == nil {
			b = make([]byte, hashChunk)
		}
		n := copy(b[:hashChunk], rest)
		a.full <- b[:n]
		rest = rest[n:]
	}
	return len(p), nil
}

func (a *asyncHash) close() {
	if !a.closed {
		a.closed = true
		close(a.full)
		<-a.done
	}
}

// sum ends the hashing.
func (a *asyncHash) sum() []byte {
	a.close()
	return a.h.Sum(nil)
}

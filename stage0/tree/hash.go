package tree

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/rkt-systemd/rkt/internal/sys"
)

// hashVersion begins the hashed text; change it with the encoding.
const hashVersion = "rkt tree 1\n"

const hashQueue = 64

// hashItem is one entry on its way through the hash: its metadata now, the
// digest of its content when a worker has it.
type hashItem struct {
	head   []byte
	file   *os.File // to be hashed, or nil
	digest []byte
	err    error
	done   chan struct{}
}

// hashTree hashes a root file system: SHA-512 over, in lexical order, each
// entry's name, type, mode, owner, size, link target, device numbers, the
// extended attributes that images may carry, and the SHA-256 of its content or
// the name of the file it is a hard link of. Times and sockets do not count.
// Contents are hashed in parallel, the order is kept.
func hashTree(ctx context.Context, root string) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work := make(chan *hashItem, hashQueue)
	order := make(chan *hashItem, hashQueue)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 8) {
		wg.Go(func() { hashContents(ctx, work) })
	}
	var walkErr error
	wg.Go(func() {
		defer close(order)
		defer close(work)
		walkErr = queueTree(ctx, root, work, order)
	})
	sum := sha512.New()
	sum.Write([]byte(hashVersion))
	var err error
	for item := range order {
		<-item.done
		if err == nil {
			err = item.err
		}
		if err != nil {
			cancel() // and let the channel run dry
			continue
		}
		sum.Write(item.head)
		sum.Write(item.digest)
	}
	wg.Wait()
	if err == nil {
		err = walkErr
	}
	if err != nil {
		return "", err
	}
	return "sha512-" + hex.EncodeToString(sum.Sum(nil)), nil
}

func hashContents(ctx context.Context, work <-chan *hashItem) {
	buf := make([]byte, 256<<10)
	for item := range work {
		h := sha256.New()
		if item.err = ctx.Err(); item.err == nil {
			_, item.err = io.CopyBuffer(onlyWriter{h}, onlyReader{item.file}, buf)
		}
		item.file.Close()
		item.digest = h.Sum(nil)
		close(item.done)
	}
}

func queueTree(ctx context.Context, root string, work, order chan<- *hashItem) error {
	first := map[inode]string{}
	return walk(root, func(e entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.stat.Type() == sys.S_IFSOC {
			return nil
		}
		item := &hashItem{done: make(chan struct{})}
		var err error
		if item.head, err = hashHead(e); err != nil {
			return err
		}
		if e.stat.Type() == sys.S_IFREG {
			id := inode{e.stat.Dev, e.stat.Inode}
			if name, ok := first[id]; ok {
				item.head = appendField(item.head, name)
			} else {
				if e.stat.Nlink > 1 {
					first[id] = e.rel
				}
				fd, err := e.openRead()
				if err != nil {
					return err
				}
				item.file = os.NewFile(uintptr(fd), e.rel)
			}
		}
		if item.file == nil {
			close(item.done)
		} else {
			work <- item
		}
		order <- item
		return nil
	})
}

func appendField(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func hashHead(e entry) ([]byte, error) {
	st := e.stat
	b := appendField(nil, e.rel)
	for _, n := range []uint32{st.Mode, st.UID, st.GID} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	switch st.Type() {
	case sys.S_IFREG:
		b = binary.AppendUvarint(b, uint64(st.Size)) //nolint:gosec // sizes are positive
	case sys.S_IFLNK:
		target, err := sys.Readlinkat(e.dir, e.name)
		if err != nil {
			return nil, err
		}
		return appendField(b, target), nil
	case sys.S_IFCHR, sys.S_IFBLK:
		return binary.AppendUvarint(b, st.Rdev), nil
	case sys.S_IFDIR:
	default:
		return b, nil
	}
	fd, err := e.openRead()
	if err != nil {
		return nil, err
	}
	defer sys.Close(fd)
	names, err := sys.Flistxattr(fd)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool {
		return !allowedXattr(n) && n != opaqueXattr && n != opaqueUserXattr
	})
	slices.Sort(names)
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, n := range names {
		v, err := sys.Fgetxattr(fd, n)
		if err != nil {
			return nil, err
		}
		b = appendField(appendField(b, n), string(v))
	}
	return b, nil
}

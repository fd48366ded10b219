package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// xzReader reads the .xz file format (version 1.1.0). The library knows it,
// too, but makes room for whatever dictionary any block asks for.
type xzReader struct {
	r       *bufio.Reader
	n       int64 // bytes read of the stream
	check   byte  // the kind of check of its blocks
	sum     hash.Hash
	block   *lzma.Reader2 // nil between blocks
	begun   int64         // where the block began
	plain   int64         // bytes of the block
	blocks  uint64
	sizes   hash.Hash // of the blocks' sizes, as the index should repeat them
	total   int64     // plain bytes of all
	granted int64     // of dictionaries
	err     error
}

var (
	errXZ     = errors.New("xz: damaged data")
	xzMagic   = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	xzTrailer = []byte{'Y', 'Z'}
)

func newXZ(r *bufio.Reader) (*xzReader, error) {
	x := &xzReader{r: r}
	return x, x.stream()
}

// read reads the next bytes of the stream.
func (x *xzReader) read(b []byte) error {
	n, err := io.ReadFull(x.r, b)
	x.n += int64(n)
	return unexpected(err)
}

// ReadByte makes the library read no more than it needs.
func (x *xzReader) ReadByte() (byte, error) {
	b, err := x.r.ReadByte()
	if err != nil {
		return 0, unexpected(err)
	}
	x.n++
	return b, nil
}

// xzSource is what a block is read from.
type xzSource struct{ x *xzReader }

func (s xzSource) Read(b []byte) (int, error) {
	n, err := s.x.r.Read(b)
	s.x.n += int64(n)
	return n, unexpected(err)
}

func (s xzSource) ReadByte() (byte, error) { return s.x.ReadByte() }

// stream begins a stream.
func (x *xzReader) stream() error {
	var h [12]byte
	if err := x.read(h[:]); err != nil {
		return err
	}
	if !bytes.Equal(h[:6], xzMagic) || h[6] != 0 || h[7] > 15 || binary.LittleEndian.Uint32(h[8:]) != crc32.ChecksumIEEE(h[6:8]) {
		return errXZ
	}
	x.check, x.blocks, x.sizes = h[7], 0, sha256.New()
	switch x.check {
	case 0:
		x.sum = nil
	case 1:
		x.sum = crc32.NewIEEE()
	case 4:
		x.sum = crc64.New(crc64.MakeTable(crc64.ECMA))
	case 10:
		x.sum = sha256.New()
	default:
		return fmt.Errorf("xz: unknown check %d", x.check)
	}
	return nil
}

func (x *xzReader) Read(b []byte) (int, error) {
	for x.err == nil {
		if x.block == nil {
			x.err = x.next()
			continue
		}
		n, err := x.block.Read(b)
		x.plain += int64(n)
		x.total += int64(n)
		if x.sum != nil {
			x.sum.Write(b[:n])
		}
		if errors.Is(err, io.EOF) {
			err = x.endBlock()
		}
		x.err = err
		if n > 0 || len(b) == 0 {
			return n, nil
		}
	}
	return 0, x.err
}

// next begins a block, or ends the stream and begins another; io.EOF if there
// is none.
func (x *xzReader) next() error {
	size, err := x.ReadByte()
	if err != nil {
		return err
	}
	if size == 0 {
		return x.endStream()
	}
	x.begun, x.plain = x.n-1, 0
	h := make([]byte, (int(size)+1)*4)
	h[0] = size
	if err := x.read(h[1:]); err != nil {
		return err
	}
	body := h[:len(h)-4]
	flags, rest := body[1], body[2:]
	for _, present := range []bool{flags&0x40 != 0, flags&0x80 != 0} {
		if present { // the sizes; the index has them, too
			_, n := binary.Uvarint(rest)
			if n <= 0 {
				return errXZ
			}
			rest = rest[n:]
		}
	}
	// LZMA2 (0x21, one byte of properties) alone; others filter machine code.
	if flags&3 != 0 || len(rest) < 3 || rest[0] != 0x21 || rest[1] != 1 {
		return errors.New("xz: unknown filter")
	}
	bits := int(rest[2])
	if bits > 40 || bits == 40 || (2|int64(bits&1))<<(bits/2+11) > maxWindow {
		return fmt.Errorf("the dictionary is larger than %d MiB", maxWindow>>20)
	}
	if binary.LittleEndian.Uint32(h[len(body):]) != crc32.ChecksumIEEE(body) || flags&0x3c != 0 {
		return errXZ
	}
	dict := (2 | int64(bits&1)) << (bits/2 + 11)
	// Blocks are larger than their dictionaries, but for the last.
	if x.granted += dict; x.granted > 16*maxWindow+4*x.total {
		return errors.New("xz: too many large dictionaries for so little data")
	}
	x.block, err = lzma.Reader2Config{DictCap: int(dict)}.NewReader2(xzSource{x})
	return err
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// pad reads zeros up to a multiple of four bytes.
func (x *xzReader) pad() error {
	for x.n%4 != 0 {
		if c, err := x.ReadByte(); err != nil || c != 0 {
			return errors.Join(errXZ, err)
		}
	}
	return nil
}

// endBlock compares the block's check.
func (x *xzReader) endBlock() error {
	x.block = nil
	packed := x.n - x.begun
	if err := x.pad(); err != nil {
		return err
	}
	if x.sum != nil {
		want := make([]byte, x.sum.Size())
		if err := x.read(want); err != nil {
			return err
		}
		packed += int64(len(want))
		got := x.sum.Sum(nil)
		if x.check != 10 { // the short ones are little-endian
			for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
				got[i], got[j] = got[j], got[i]
			}
		}
		if !bytes.Equal(got, want) {
			return errors.New("xz: the data does not match its check")
		}
		x.sum.Reset()
	}
	x.blocks++
	x.note(x.sizes, packed, x.plain)
	return nil
}

func (x *xzReader) note(h hash.Hash, packed, plain int64) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(packed)) //nolint:gosec // sizes
	binary.LittleEndian.PutUint64(b[8:], uint64(plain)) //nolint:gosec // sizes
	h.Write(b[:])
}

// xzIndex reads the index and sums it.
type xzIndex struct {
	x   *xzReader
	sum hash.Hash32
}

func (i xzIndex) ReadByte() (byte, error) {
	b, err := i.x.ReadByte()
	i.sum.Write([]byte{b})
	return b, err
}

// endStream reads the index and the footer, whose first byte was read.
func (x *xzReader) endStream() error {
	start := x.n - 1
	index := xzIndex{x, crc32.NewIEEE()}
	index.sum.Write([]byte{0})
	blocks, err := binary.ReadUvarint(index)
	if err != nil || blocks != x.blocks {
		return errors.Join(errXZ, err)
	}
	sizes := sha256.New()
	for range blocks {
		packed, err := binary.ReadUvarint(index)
		if err != nil {
			return errors.Join(errXZ, err)
		}
		plain, err := binary.ReadUvarint(index)
		if err != nil {
			return errors.Join(errXZ, err)
		}
		x.note(sizes, int64(packed), int64(plain)) //nolint:gosec // compared only
	}
	if !bytes.Equal(sizes.Sum(nil), x.sizes.Sum(nil)) {
		return errXZ
	}
	for (x.n-start)%4 != 0 {
		if c, err := index.ReadByte(); err != nil || c != 0 {
			return errors.Join(errXZ, err)
		}
	}
	var f [16]byte // the index's sum and the footer
	size := x.n - start + 4
	if err := x.read(f[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(f[:]) != index.sum.Sum32() || binary.LittleEndian.Uint32(f[4:]) != crc32.ChecksumIEEE(f[8:14]) ||
		(int64(binary.LittleEndian.Uint32(f[8:]))+1)*4 != size || f[12] != 0 || f[13] != x.check || !bytes.Equal(f[14:], xzTrailer) {
		return errXZ
	}
	return x.nextStream()
}

// nextStream begins another stream behind padding, if there is one.
func (x *xzReader) nextStream() error {
	for {
		head, err := x.r.Peek(4)
		switch {
		case len(head) == 0 && errors.Is(err, io.EOF):
			return io.EOF
		case err != nil:
			return unexpected(err)
		case !bytes.Equal(head, []byte{0, 0, 0, 0}):
			return x.stream()
		}
		if _, err := x.r.Discard(4); err != nil {
			return err
		}
		x.n += 4
	}
}

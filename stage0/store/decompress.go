package store

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds the memory that a compressed stream can ask for.
const maxWindow = 64 << 20

// Format is how an archive is compressed.
type Format string

const (
	Gzip  Format = "gzip"
	Bzip2 Format = "bzip2"
	XZ    Format = "xz"
	Zstd  Format = "zstd"
	Tar   Format = "tar" // not compressed
)

// ErrFormat means that data is no archive.
var ErrFormat = errors.New("not a tar archive, nor one compressed with gzip, bzip2, xz or zstd")

// Detect tells a format by its first bytes (512 are enough).
func Detect(head []byte) (Format, error) {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return Gzip, nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return Bzip2, nil
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return XZ, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return Zstd, nil
	case len(head) >= 512 && (string(head[257:262]) == "ustar" || v7Header(head[:512]) || emptyTar(head[:512])):
		return Tar, nil
	case bytes.HasPrefix(head, []byte("-----BEGIN PGP MESSAGE-----")) || encrypted(head):
		return "", errors.New("the image is encrypted with OpenPGP, which is not supported: decrypt it first (gpg --decrypt)")
	case len(head) == 0:
		return "", errors.New("the file is empty")
	}
	return "", ErrFormat
}

// v7Header says whether a block is a tar header without a magic number, by its checksum.
func v7Header(b []byte) bool {
	var sum, want int64
	for i, c := range b {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int64(c)
	}
	for _, c := range bytes.Trim(b[148:156], " \x00") {
		if c < '0' || c > '7' {
			return false
		}
		want = want<<3 | int64(c-'0')
	}
	return want == sum && sum != 8*' '
}

// emptyTar says whether a block is the end of an archive: empty layers, which
// docker save writes, begin with it.
func emptyTar(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// encrypted recognises an OpenPGP message with a session key packet (tags 1 and 3).
func encrypted(head []byte) bool {
	if len(head) < 3 || head[0]&0x80 == 0 {
		return false
	}
	tag := head[0] >> 2 & 0x0f
	if head[0]&0x40 != 0 {
		tag = head[0] & 0x3f
	}
	// After the tag and a length of one byte comes the packet's version.
	return tag == 1 && (head[2] == 3 || head[2] == 6) || tag == 3 && head[2] >= 4 && head[2] <= 6
}

// Decompress detects a stream's format and yields its plain bytes. Trailing
// garbage after the compressed data is an error.
func Decompress(r io.Reader) (io.ReadCloser, Format, error) {
	br := bufio.NewReaderSize(r, headSize)
	format, err := peekFormat(br)
	if err != nil {
		return nil, "", err
	}
	plain, err := decompress(br, format)
	if err != nil {
		return nil, "", fmt.Errorf("decompressing %s data: %w", format, err)
	}
	return plain, format, nil
}

// headSize is how much of a stream can be looked at before it is read.
const headSize = smallGzip

func peekFormat(br *bufio.Reader) (Format, error) {
	head, err := br.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return Detect(head)
}

// decompress is the one place that knows the decompressors; br's first bytes
// can be peeked at.
func decompress(br *bufio.Reader, format Format) (io.ReadCloser, error) {
	switch format {
	case Gzip:
		return gunzip(br)
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(br)), nil
	case XZ:
		r, err := newXZ(br)
		return io.NopCloser(r), err
	case Zstd:
		d, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	default:
		return io.NopCloser(br), nil
	}
}

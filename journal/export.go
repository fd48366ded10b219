package journal

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Limits of an entry: journald's own are 1024 fields, 768 MiB a field; lines
// of that size serve nobody here, so larger values are cut.
const (
	maxFields = 1024
	maxValue  = 1 << 20
)

var errFormat = errors.New("malformed journal export")

// ReadEntry reads one entry in the journal export format
// (systemd.io/JOURNAL_EXPORT_FORMATS). Values longer than 1 MiB are cut. It
// returns io.EOF at the end, also within an entry that was cut off by it.
func ReadEntry(r *bufio.Reader) (Entry, error) {
	var e Entry
	any := false
	for {
		line, err := readLine(r)
		if err != nil {
			return Entry{}, eof(err)
		}
		if len(line) == 0 {
			if !any {
				continue // blank lines between entries
			}
			return e, nil
		}
		any = true
		name, value, found := bytes.Cut(line, []byte{'='})
		// A copy: the line is the reader's buffer, which is reused.
		f := Field{Name: string(name)}
		if !ValidField(strings.TrimLeft(f.Name, "_")) {
			return Entry{}, fmt.Errorf("%w: field name %q", errFormat, cut(name))
		}
		if found {
			f.Value = bytes.Clone(value)
		} else if f.Value, err = readBinary(r); err != nil {
			return Entry{}, err
		}
		if err := e.add(f); err != nil {
			return Entry{}, err
		}
	}
}

func cut(b []byte) []byte { return b[:min(len(b), 64)] }

func (e *Entry) add(f Field) error {
	switch f.Name {
	case fieldCursor:
		e.Cursor = string(f.Value)
		return nil
	case fieldRealtime, fieldMonotonic:
		us, err := strconv.ParseInt(string(f.Value), 10, 64)
		if err != nil || us < 0 {
			return fmt.Errorf("%w: %s %q", errFormat, f.Name, cut(f.Value))
		}
		if f.Name == fieldRealtime {
			e.Realtime = time.UnixMicro(us)
		} else {
			e.Monotonic = time.Duration(min(us, (1<<63-1)/1000)) * time.Microsecond
		}
		return nil
	}
	if len(e.Fields) >= maxFields {
		return fmt.Errorf("%w: more than %d fields", errFormat, maxFields)
	}
	e.Fields = append(e.Fields, f)
	return nil
}

// readLine returns a line without its newline; what is beyond maxValue of it
// is dropped.
func readLine(r *bufio.Reader) ([]byte, error) {
	var long []byte
	for {
		part, err := r.ReadSlice('\n')
		if err == nil {
			part = part[:len(part)-1]
		}
		if long == nil && err != bufio.ErrBufferFull {
			return part, err
		}
		long = append(long, part[:min(len(part), max(0, maxValue-len(long)))]...)
		if err != bufio.ErrBufferFull {
			return long, err
		}
	}
}

// readBinary reads a value in the binary form: a 64 bit little endian size,
// the data, a newline.
func readBinary(r *bufio.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, eof(err)
	}
	size := binary.LittleEndian.Uint64(head[:])
	if size > 1<<40 {
		return nil, fmt.Errorf("%w: field of %d bytes", errFormat, size)
	}
	keep := min(size, maxValue)
	var buf bytes.Buffer
	if _, err := io.CopyN(&buf, r, int64(keep)); err != nil {
		return nil, eof(err)
	}
	if _, err := io.CopyN(io.Discard, r, int64(size-keep)); err != nil {
		return nil, eof(err)
	}
	c, err := r.ReadByte()
	if err != nil {
		return nil, eof(err)
	}
	if c != '\n' {
		return nil, fmt.Errorf("%w: no newline after a binary field", errFormat)
	}
	return buf.Bytes(), nil
}

// eof makes the end of the input within an entry a plain end: journalctl was
// stopped while it wrote.
func eof(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return io.EOF
	}
	return fmt.Errorf("reading the journal: %w", err)
}

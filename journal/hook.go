package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// Socket is where journald takes entries in its native protocol.
const Socket = "/run/systemd/journal/socket"

// Writer sends entries to journald, systemd.io/JOURNAL_NATIVE_PROTOCOL. It is
// safe for concurrent use.
type Writer struct {
	conn *net.UnixConn
	addr *net.UnixAddr
}

// NewWriter makes a writer for the journal socket at path, "" being journald's.
// The socket is own to the writer: no process-wide state.
func NewWriter(path string) (*Writer, error) {
	if path == "" {
		path = Socket
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"}) // autobind
	if err != nil {
		return nil, fmt.Errorf("making a socket for the journal: %w", err)
	}
	return &Writer{conn, &net.UnixAddr{Net: "unixgram", Name: path}}, nil
}

// Close closes the socket.
func (w *Writer) Close() error { return w.conn.Close() }

// Send sends one entry, its fields in the order given. A bad field name is an
// error and nothing is sent.
func (w *Writer) Send(fields []Field) error {
	var b bytes.Buffer
	for _, f := range fields {
		if !ValidField(f.Name) {
			return fmt.Errorf("writing to the journal: %q is no valid field name", f.Name)
		}
		appendField(&b, f)
	}
	_, _, err := w.conn.WriteMsgUnix(b.Bytes(), nil, w.addr)
	if errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ENOBUFS) {
		err = w.sendLarge(b.Bytes())
	}
	if err != nil {
		return fmt.Errorf("writing to the journal: %w", err)
	}
	return nil
}

func appendField(b *bytes.Buffer, f Field) {
	b.WriteString(f.Name)
	if bytes.IndexByte(f.Value, '\n') < 0 {
		b.WriteByte('=')
	} else {
		b.WriteByte('\n')
		_ = binary.Write(b, binary.LittleEndian, uint64(len(f.Value))) // a Buffer never fails
	}
	b.Write(f.Value)
	b.WriteByte('\n')
}

// sendLarge passes what no datagram can hold as a sealed memfd.
func (w *Writer) sendLarge(data []byte) error {
	fd, err := unix.MemfdCreate("rkt-journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("making a memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "rkt-journal")
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("sealing a memfd: %w", err)
	}
	_, _, err = w.conn.WriteMsgUnix(nil, syscall.UnixRights(int(f.Fd())), w.addr)
	return err
}

// Hook is a logrus hook that writes every line to the journal. Its fields
// become journal fields as FieldName says; those whose key yields none are
// appended to the message instead of being lost.
type Hook struct {
	w          *Writer
	identifier string
	fixed      []Field
}

var _ logrus.Hook = (*Hook)(nil)

// NewHook makes a hook over w. identifier is the SYSLOG_IDENTIFIER of the
// lines.
func NewHook(w *Writer, identifier string) *Hook { return &Hook{w: w, identifier: identifier} }

// Levels is part of logrus.Hook.
func (h *Hook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire is part of logrus.Hook.
func (h *Hook) Fire(e *logrus.Entry) error {
	keys := make([]string, 0, len(e.Data))
	for k := range e.Data {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	message := e.Message
	var fields []Field
	for _, k := range keys {
		v := fmt.Sprint(e.Data[k])
		if name := FieldName(k); name != "" {
			fields = append(fields, Field{name, []byte(v)})
		} else {
			message += " " + strconv.Quote(k) + "=" + strconv.Quote(v)
		}
		if k == KeyError {
			message += ": " + v
		}
	}
	head := []Field{
		{fieldMessage, []byte(message)},
		{fieldPriority, []byte(strconv.Itoa(priority(e.Level)))},
		{fieldIdentifier, []byte(h.identifier)},
	}
	return h.w.Send(append(append(head, h.fixed...), fields...))
}

func priority(l logrus.Level) int {
	switch l {
	case logrus.PanicLevel, logrus.FatalLevel:
		return 2
	case logrus.ErrorLevel:
		return 3
	case logrus.WarnLevel:
		return 4
	case logrus.InfoLevel:
		return 6
	}
	return 7
}

// StderrIsJournal reports whether standard error is connected to the journal:
// $JOURNAL_STREAM names its device and inode (systemd.exec(5)). The variable
// alone proves nothing, as children inherit it.
func StderrIsJournal() bool { return isJournal(os.Stderr, os.Getenv("JOURNAL_STREAM")) }

func isJournal(f *os.File, value string) bool {
	dev, ino, ok := strings.Cut(value, ":")
	if !ok {
		return false
	}
	fi, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && dev == strconv.FormatUint(st.Dev, 10) && ino == strconv.FormatUint(st.Ino, 10)
}

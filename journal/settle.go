package journal

import (
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// settleLimit bounds the wait for a journald that does not read.
const settleLimit = time.Second

// Settle waits until journald has filed what l sent to it. journald looks up
// the sender's unit when it reads an entry, and finds none for a process that
// has ended: the last words of a program would be missing in systemctl status.
func Settle(l *logrus.Logger) {
	if l == nil {
		return
	}
	for _, h := range l.Hooks[logrus.InfoLevel] {
		if h, ok := h.(*Hook); ok {
			h.w.settle(settleLimit)
		}
	}
}

func (w *Writer) settle(limit time.Duration) {
	// journald ignores an empty message; once it has taken it, it is done with those before.
	if _, _, err := w.conn.WriteMsgUnix(nil, nil, w.addr); err != nil {
		return
	}
	raw, err := w.conn.SyscallConn()
	if err != nil {
		return
	}
	for end := time.Now().Add(limit); time.Now().Before(end); {
		unread := 0
		err := raw.Control(func(fd uintptr) { unread, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		if err != nil || unread == 0 {
			return
		}
		time.Sleep(100 * time.Microsecond)
	}
}

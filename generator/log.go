package generator

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Message is something for the administrator.
type Message struct {
	// Text is one line.
	Text string
	// ID is a MESSAGE_ID, Pod and File what it is about, empty where it is about
	// none.
	ID, Pod, File string
	// Line is that of the file, 0 for none.
	Line int
	// Error is worse than a warning.
	Error bool
}

// maxLines bounds what a run says: every daemon-reload says it again.
const maxLines = 50

// Log is where messages go: to the journal with fields, when journald is there;
// else to the kernel's log, from where journald takes them when it starts; else to
// standard error. See systemd.generator(7). It never waits.
type Log struct {
	journal int // a socket, -1 for none
	kmsg    int
	lines   int
	to      syscall.Sockaddr
	pid     string
}

// OpenLog opens the log. system says that systemd runs this program.
func OpenLog(system bool, socket string) *Log {
	l := &Log{journal: -1, kmsg: -1, pid: strconv.Itoa(os.Getpid())}
	if !system {
		return l
	}
	// Whether anybody listens shows with the first message: most runs have none.
	l.to = &syscall.SockaddrUnix{Name: socket}
	l.journal = -2
	return l
}

// Print says a message, unless too much was said.
func (l *Log) Print(m Message) {
	if l.lines++; l.lines <= maxLines {
		l.print(m)
	}
}

// End says how much was not said.
func (l *Log) End() {
	if more := l.lines - maxLines; more > 0 {
		l.print(Message{Text: strconv.Itoa(more) + " more messages, see rkt pod check"})
	}
}

func (l *Log) print(m Message) {
	priority := "4"
	if m.Error {
		priority = "3"
	}
	if l.journal == -2 {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
		if l.journal = fd; err != nil {
			l.journal = -1
		}
	}
	if l.journal >= 0 {
		if syscall.Sendto(l.journal, entry(m, priority), syscall.MSG_NOSIGNAL, l.to) == nil {
			return
		}
	}
	if l.to != nil && l.kmsg < 0 {
		l.kmsg, _ = syscall.Open("/dev/kmsg", syscall.O_WRONLY|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	}
	if l.kmsg >= 0 {
		// one write is one record
		if _, err := syscall.Write(l.kmsg, []byte("<"+priority+">rkt-generator["+l.pid+"]: "+m.Text+"\n")); err == nil {
			return
		}
	}
	_, _ = os.Stderr.WriteString(m.Text + "\n") // nowhere else to say it
}

// entry is a message in journald's native protocol. No value has a line break.
func entry(m Message, priority string) []byte {
	var b strings.Builder
	for _, f := range [][2]string{{"MESSAGE", m.Text}, {"PRIORITY", priority}, {"SYSLOG_IDENTIFIER", "rkt-generator"}, {"MESSAGE_ID", m.ID},
		{"RKT_POD_NAME", m.Pod}, {"RKT_FILE", m.File}} {
		if f[1] != "" {
			b.WriteString(f[0] + "=" + oneLine(f[1]) + "\n")
		}
	}
	if m.Line > 0 {
		b.WriteString("RKT_LINE=" + strconv.Itoa(m.Line) + "\n")
	}
	return []byte(b.String())
}

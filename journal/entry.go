package journal

import (
	"strconv"
	"strings"
	"time"
)

// Field is a field of an entry. A name may occur more than once.
type Field struct {
	Name  string
	Value []byte
}

// Entry is one line of the journal.
type Entry struct {
	Cursor    string
	Realtime  time.Time
	Monotonic time.Duration
	Fields    []Field
}

// Value returns the first field of a name, "" when there is none.
func (e *Entry) Value(name string) string {
	for i := range e.Fields {
		if e.Fields[i].Name == name {
			return string(e.Fields[i].Value)
		}
	}
	return ""
}

// Message is the text of the entry.
func (e *Entry) Message() string { return e.Value(fieldMessage) }

// App is who wrote the entry: its syslog identifier, which is the app's name
// for what an app writes to stdout and stderr.
func (e *Entry) App() string {
	if id := e.Value(fieldIdentifier); id != "" {
		return id
	}
	return e.Value(fieldComm)
}

// PID is the host's PID of the writer, 0 when unknown.
func (e *Entry) PID() int {
	s := e.Value(fieldPID)
	if s == "" {
		s = e.Value(fieldSyslogPID)
	}
	pid, _ := strconv.Atoi(s)
	return max(pid, 0)
}

// Priority is the syslog level, 6 (info) when there is none.
func (e *Entry) Priority() int {
	p, err := strconv.Atoi(e.Value(fieldPriority))
	if err != nil || p < 0 || p > 7 {
		return 6
	}
	return p
}

// Short formats the entry as "[ts] app[pid]: text". Further lines of a text
// are indented under the first, and control characters that would drive a
// terminal are replaced, since the text is an app's.
func (e *Entry) Short() string {
	var b strings.Builder
	b.WriteString(e.Realtime.Local().Format("[2006-01-02T15:04:05.000000Z07:00] "))
	head := clean(e.App())
	if head == "" {
		head = "unknown"
	}
	if pid := e.PID(); pid > 0 {
		head += "[" + strconv.Itoa(pid) + "]"
	}
	head += ": "
	b.WriteString(head)
	indent := "\n" + strings.Repeat(" ", b.Len())
	for i, line := range strings.Split(strings.TrimRight(e.Message(), "\n"), "\n") {
		if i > 0 {
			b.WriteString(indent)
		}
		b.WriteString(clean(line))
	}
	return b.String()
}

// clean replaces what is not printable by "?", keeping tabs.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		if r == '\uFFFD' || !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

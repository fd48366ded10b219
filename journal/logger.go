package journal

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sort"

	"github.com/sirupsen/logrus"
)

// NewLogger makes the logger a program of rkt hands down: native structured
// lines when standard error is the journal, "component: message" lines when it
// is a terminal, pipe or file. environ is searched for JOURNAL_STREAM.
func NewLogger(component, journalStream string, debug bool) *logrus.Logger {
	l := logrus.New()
	l.SetOutput(os.Stderr)
	l.SetFormatter(&plain{component})
	if debug {
		l.SetLevel(logrus.DebugLevel)
	}
	if journalStream != "" && StderrIsJournal() {
		if w, err := NewWriter(""); err == nil {
			l.SetOutput(io.Discard)
			l.AddHook(NewHook(w, "rkt"))
		}
	}
	return l
}

// SetField adds a field to every line that l writes to the journal from now
// on; key is one of the Key constants.
func SetField(l *logrus.Logger, key, value string) {
	name := FieldName(key)
	if name == "" || value == "" {
		return
	}
	for _, h := range l.Hooks[logrus.InfoLevel] {
		if h, ok := h.(*Hook); ok {
			h.fixed = append(h.fixed, Field{name, []byte(value)})
		}
	}
}

// plain writes "component: message" and, for people who debug, the fields.
type plain struct{ component string }

// Format is part of logrus.Formatter.
func (p *plain) Format(e *logrus.Entry) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s: ", p.component)
	if e.Level == logrus.WarnLevel {
		b.WriteString("warning: ")
	}
	b.WriteString(e.Message)
	if e.Logger.IsLevelEnabled(logrus.DebugLevel) {
		keys := make([]string, 0, len(e.Data))
		for k := range e.Data {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			fmt.Fprintf(&b, " %s=%v", k, e.Data[k])
		}
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

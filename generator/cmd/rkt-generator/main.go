// Command rkt-generator makes units for the pods declared in /etc/rkt/pods and
// its siblings; see rkt-generator(8). systemd calls it with three output
// directories, of which it uses the first. Whatever happens it exits with 0: a
// pod file must never keep a host from booting.
package main

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/generator"
)

const usage = "usage: rkt-generator [--root=DIR] NORMAL-DIR [EARLY-DIR LATE-DIR]\n"

// maxLines bounds what a run says: every daemon-reload says it again.
const maxLines = 50

func main() {
	// A run is short: collecting garbage would be a third of its time. The
	// memory limit brings the collector back for hostile input.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(64 << 20)

	l := &log{out: os.Stderr}
	var root string
	var dirs []string
	for _, a := range os.Args[1:] {
		if v, ok := strings.CutPrefix(a, "--root="); ok {
			root = v
			continue
		}
		if strings.HasPrefix(a, "-") {
			_, _ = os.Stderr.WriteString(usage) // nowhere else to say it
			return
		}
		dirs = append(dirs, a)
	}
	if len(dirs) == 0 {
		_, _ = os.Stderr.WriteString(usage) // nowhere else to say it
		return
	}
	// systemd gives three directories; then there is no journal yet and the
	// kernel's log is the place, see systemd.generator(7).
	if root == "" && len(dirs) == 3 {
		if f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err == nil {
			l.out, l.prefix = f, "<4>rkt-generator["+strconv.Itoa(os.Getpid())+"]: "
		}
	}
	defer func() {
		if r := recover(); r != nil {
			l.print("internal error, stopping: " + panicText(r))
		}
	}()
	generator.Run(generator.Options{Output: dirs[0], Root: root, Log: l.print})
	l.end()
}

func panicText(r any) string {
	switch v := r.(type) {
	case error:
		return v.Error()
	case string:
		return v
	}
	return "panic"
}

// log writes lines, each with one write as /dev/kmsg wants it.
type log struct {
	out    *os.File
	prefix string
	lines  int
}

func (l *log) print(line string) {
	l.lines++
	if l.lines <= maxLines {
		_, _ = l.out.WriteString(l.prefix + line + "\n") // nowhere else to say it
	}
}

func (l *log) end() {
	if more := l.lines - maxLines; more > 0 {
		l.lines = 0
		l.print(strconv.Itoa(more) + " more messages, see rkt pod check")
	}
}

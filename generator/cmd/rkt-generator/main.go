// Command rkt-generator makes units for the pods declared in /etc/rkt/pods and
// its siblings; see rkt-generator(8). systemd calls it with three output
// directories, of which it uses the first. Whatever happens it exits with 0: a
// pod file must never keep a host from booting.
package main

import (
	"os"
	"runtime/debug"
	"strings"

	"github.com/rkt-systemd/rkt/generator"
	"github.com/rkt-systemd/rkt/internal/msgid"
)

const usage = "usage: rkt-generator [--root=DIR] NORMAL-DIR [EARLY-DIR LATE-DIR]\n"

// journald takes messages here, when it is there.
const journal = "/run/systemd/journal/socket"

func main() {
	// A run is short: collecting garbage would be a third of its time. The
	// memory limit brings the collector back for hostile input.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(64 << 20)

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
	// systemd gives three directories; people one.
	log := generator.OpenLog(root == "" && len(dirs) == 3, journal)
	defer func() {
		if r := recover(); r != nil {
			log.Print(generator.Message{Text: "internal error, stopping: " + panicText(r), ID: msgid.PodNotGenerated, Error: true})
		}
	}()
	generator.Run(generator.Options{Output: dirs[0], Root: root, Log: log.Print})
	log.End()
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

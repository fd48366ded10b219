package abi

import (
	"fmt"
	"strconv"
	"strings"
)

// Annotations of a stage1 image manifest that name the entrypoints of mutable
// pods, which work inside the pod: since version 5.
const (
	AnnotationAppAdd   = prefix + "app/add"
	AnnotationAppStart = prefix + "app/start"
	AnnotationAppStop  = prefix + "app/stop"
	AnnotationAppRm    = prefix + "app/rm"
)

// MutableEntrypoints are those without which a stage1 image cannot run mutable pods.
func MutableEntrypoints() []string {
	return []string{AnnotationAppAdd, AnnotationAppStart, AnnotationAppStop, AnnotationAppRm}
}

// App holds the arguments of the app entrypoints. UUID is for app/add only.
type App struct {
	Debug bool
	UUID  string
	App   string
}

// Args builds the command line without the program.
func (a App) Args() []string {
	args := []string{"--debug=" + strconv.FormatBool(a.Debug)}
	if a.UUID != "" {
		args = append(args, "--uuid="+a.UUID)
	}
	return append(args, "--app="+a.App)
}

// ParseApp is the inverse of Args.
func ParseApp(args []string) (App, error) {
	var a App
	for _, arg := range args {
		name, value, has := strings.Cut(arg, "=")
		switch name {
		case "--debug":
			if err := parseFlag(&a.Debug, name, value, has); err != nil {
				return a, err
			}
		case "--uuid":
			a.UUID = value
		case "--app":
			a.App = value
		default:
			return a, fmt.Errorf("unknown argument %q", arg)
		}
	}
	if a.App == "" {
		return a, fmt.Errorf("--app is missing")
	}
	return a, nil
}

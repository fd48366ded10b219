package abi

import (
	"fmt"
	"strconv"
	"strings"
)

// AnnotationAttach names the entrypoint that connects to the streams of an app.
const AnnotationAttach = prefix + "attach"

// Environment of the crossing entrypoints, which get nothing else but PATH: how
// to enter the pod.
const (
	EnvEnterCmd = "RKT_STAGE1_ENTERCMD"
	EnvEnterPID = "RKT_STAGE1_ENTERPID"
)

// What the attach entrypoint is to do.
const (
	AttachList   = "list"          // print the app's endpoints
	AttachAuto   = "auto-attach"   // connect to all of them
	AttachCustom = "custom-attach" // connect to those named
)

// Attach holds the arguments of the attach entrypoint, since version 5.
type Attach struct {
	Action string
	App    string
	Debug  bool
	// for AttachCustom
	TTYIn, TTYOut, Stdin, Stdout, Stderr bool
}

// flags are the arguments that take true or false; custom ones are passed for
// AttachCustom only.
func (a *Attach) flags() []struct {
	name   string
	value  *bool
	custom bool
} {
	return []struct {
		name   string
		value  *bool
		custom bool
	}{{"--debug", &a.Debug, false}, {"--tty-in", &a.TTYIn, true}, {"--tty-out", &a.TTYOut, true},
		{"--stdin", &a.Stdin, true}, {"--stdout", &a.Stdout, true}, {"--stderr", &a.Stderr, true}}
}

// Args builds the command line without the program.
func (a Attach) Args() []string {
	args := []string{"--action=" + a.Action, "--app=" + a.App}
	for _, f := range a.flags() {
		if !f.custom || a.Action == AttachCustom {
			args = append(args, f.name+"="+strconv.FormatBool(*f.value))
		}
	}
	return args
}

// ParseAttach is the inverse of Args.
func ParseAttach(args []string) (Attach, error) {
	var a Attach
	for _, arg := range args {
		name, value, has := strings.Cut(arg, "=")
		switch name {
		case "--action":
			a.Action = value
			continue
		case "--app":
			a.App = value
			continue
		}
		known := false
		for _, f := range a.flags() {
			if f.name != name {
				continue
			}
			known = true
			if err := parseFlag(f.value, name, value, has); err != nil {
				return a, err
			}
		}
		if !known {
			return a, fmt.Errorf("unknown argument %q", arg)
		}
	}
	if a.App == "" {
		return a, fmt.Errorf("--app is missing")
	}
	switch a.Action {
	case AttachList, AttachAuto:
		return a, nil
	case AttachCustom:
		return a, a.check()
	}
	return a, fmt.Errorf("--action takes list, auto-attach or custom-attach, not %q", a.Action)
}

func (a *Attach) check() error {
	tty, streams := a.TTYIn || a.TTYOut, a.Stdin || a.Stdout || a.Stderr
	switch {
	case tty && streams:
		return fmt.Errorf("a terminal and streams cannot be attached at the same time")
	case !tty && !streams:
		return fmt.Errorf("nothing to attach to was named")
	}
	return nil
}

// ParseAttachMode reads what a user wants to attach to: auto, list, or a list
// of stdin, stdout and stderr, or of tty, tty-in and tty-out.
func ParseAttachMode(mode string) (Attach, error) {
	switch mode {
	case "auto":
		return Attach{Action: AttachAuto}, nil
	case "list":
		return Attach{Action: AttachList}, nil
	}
	a := Attach{Action: AttachCustom}
	for word := range strings.SplitSeq(mode, ",") {
		switch word {
		case "stdin":
			a.Stdin = true
		case "stdout":
			a.Stdout = true
		case "stderr":
			a.Stderr = true
		case "tty":
			a.TTYIn, a.TTYOut = true, true
		case "tty-in":
			a.TTYIn = true
		case "tty-out":
			a.TTYOut = true
		default:
			return a, fmt.Errorf("%q is neither auto, list nor a list of stdin, stdout and stderr, or of tty, tty-in and tty-out", mode)
		}
	}
	return a, a.check()
}

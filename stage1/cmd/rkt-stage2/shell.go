package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/launch"
)

// appList names the pod's apps, a line each, in the manifest's order.
const appList = launch.Dir + ".list"

// shell serves machinectl shell and login. machined starts a transient unit
// with the command wanted; a drop-in of ours puts this program in its place,
// so that the command runs in the app and confined as the app is. The command
// is read back from the transient unit's file (systemd writes it before it
// starts the unit). Arguments: the unit's name, or nothing for login.
func shell(args []string) error {
	b, err := os.ReadFile(appList)
	if err != nil {
		return fmt.Errorf("reading the pod's apps: %w", err)
	}
	apps := strings.Fields(string(b))
	if len(apps) == 0 {
		return errors.New("this pod has no apps")
	}
	argv, user := []string(nil), ""
	if len(args) == 1 {
		if argv, user, err = transientCommand(args[0]); err != nil {
			return err
		}
	}
	interactive := argv == nil || machinedDefault(argv)
	app := apps[0]
	if interactive && len(apps) > 1 {
		if app, err = choose(apps); err != nil {
			return err
		}
	}
	s, err := launch.ReadSpec(app)
	if err != nil {
		return err
	}
	c := launch.Command{Kind: launch.Entrant, Argv: argv, Dir: "/"}
	uid := s.UID
	// machined names root when nobody was named: then it is the app's user. Root
	// is for rkt enter --user=root.
	if user != "" && user != "root" {
		if c.User, err = launch.FindUser(s.Root, user); err != nil {
			return &launch.Error{Status: launch.ExitUser, Err: err}
		}
		uid = c.User.UID
	}
	ownTerminal(s, c.User)
	if t := os.Getenv("TERM"); t != "" {
		c.Env = append(c.Env, "TERM="+t)
	}
	if interactive {
		c.Argv = []string{shellFor(s, uid), "-l"}
		c.Dir = homeOf(s, uid)
	}
	// An image without a shell is lent a static one, by descriptor: nothing is
	// put into the image, and it is gone with the process.
	if interactive || isShell(argv[0]) {
		c.Fallback = lentShell()
	}
	err = launch.Exec(s, c)
	if interactive {
		fmt.Fprintf(os.Stderr, "App %q has no shell, and the host has no static one to lend.\r\nInstall busybox-static on the host, or run a program of the image: machinectl shell POD /path/to/program\r\n", app)
	}
	return err
}

// lentShell opens the host's static shell, 0 if there is none.
func lentShell() int {
	fd, err := unix.Open("/usr/bin/busybox", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	return fd
}

func isShell(p string) bool { return p == "/bin/sh" || p == "/bin/bash" || p == "/bin/ash" }

// machinedDefault recognises the script machined runs when no command was given.
func machinedDefault(argv []string) bool {
	return len(argv) == 3 && argv[1] == "-c" && strings.Contains(argv[2], "getent passwd")
}

// choose asks which app to enter.
func choose(apps []string) (string, error) {
	fmt.Printf("This pod runs %d apps. Type the number or the name of one to enter it:\r\n", len(apps))
	for i, a := range apps {
		fmt.Printf("  %d  %s\r\n", i+1, a)
	}
	fmt.Printf("(A command runs in the first: machinectl shell POD /path/to/program. From the host: rkt enter --app=NAME POD.)\r\n")
	in := bufio.NewReader(os.Stdin)
	for {
		fmt.Printf("app [%s]: ", apps[0])
		line, err := in.ReadString('\n')
		if err != nil {
			return "", errors.New("no app chosen")
		}
		line = strings.TrimSpace(line)
		if line == "" {
			return apps[0], nil
		}
		if n, err := strconv.Atoi(line); err == nil && n >= 1 && n <= len(apps) {
			return apps[n-1], nil
		}
		for _, a := range apps {
			if a == line {
				return a, nil
			}
		}
		fmt.Printf("%q is none of them.\r\n", line)
	}
}

// shellFor is the user's shell if the image has it; service users have none
// that is of use to anybody.
func shellFor(s *launch.Spec, uid uint32) string {
	if p := launch.PasswdEntry(s.Root, uid); p != nil && strings.HasPrefix(p[6], "/") && launch.Exists(s.Root, p[6]) {
		switch path.Base(p[6]) {
		case "nologin", "false", "true", "sync":
		default:
			return p[6]
		}
	}
	if launch.Exists(s.Root, "/bin/bash") {
		return "/bin/bash"
	}
	return "/bin/sh"
}

func homeOf(s *launch.Spec, uid uint32) string {
	if p := launch.PasswdEntry(s.Root, uid); p != nil && strings.HasPrefix(p[5], "/") && launch.Exists(s.Root, p[5]) {
		return path.Clean(p[5])
	}
	return "/"
}

// transientCommand reads the ExecStart= and the User= that machined asked for.
func transientCommand(unit string) (argv []string, user string, err error) {
	if strings.ContainsAny(unit, "/\x00") {
		return nil, "", fmt.Errorf("%q is not a unit name", unit)
	}
	b, err := os.ReadFile("/run/systemd/transient/" + unit)
	if err != nil {
		return nil, "", fmt.Errorf("reading the command of %q: %w", unit, err)
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if v, ok := strings.CutPrefix(line, "ExecStart="); ok && v != "" {
			if argv, err = splitCommand(v); err != nil {
				return nil, "", fmt.Errorf("reading the command of %q: %w", unit, err)
			}
		}
		if v, ok := strings.CutPrefix(line, "User="); ok {
			user = v
		}
	}
	if len(argv) == 0 {
		return nil, "", fmt.Errorf("unit %q names no command", unit)
	}
	return argv, user, nil
}

// splitCommand parses a command as systemd writes it: an executable with
// prefixes, then quoted words with C escapes, $$ and %% doubled. With the
// prefix @ the second word is argv[0].
func splitCommand(line string) ([]string, error) {
	prefixes, rest := "", strings.TrimSpace(line)
	for rest != "" && strings.ContainsRune("@-:+!|", rune(rest[0])) {
		prefixes += rest[:1]
		rest = rest[1:]
	}
	var words []string
	for rest = strings.TrimLeft(rest, " "); rest != ""; rest = strings.TrimLeft(rest, " ") {
		w, tail, err := word(rest)
		if err != nil {
			return nil, err
		}
		w = strings.ReplaceAll(w, "%%", "%")
		if !strings.Contains(prefixes, ":") {
			w = strings.ReplaceAll(w, "$$", "$")
		}
		words = append(words, w)
		rest = tail
	}
	if strings.Contains(prefixes, "@") && len(words) > 1 {
		words = append(words[:1], words[2:]...)
	}
	return words, nil
}

func word(s string) (string, string, error) {
	var b strings.Builder
	quote := byte(0)
	if s[0] == '"' || s[0] == '\'' {
		quote = s[0]
		s = s[1:]
	}
	for s != "" {
		c := s[0]
		switch {
		case c == '\\':
			if len(s) > 1 && s[1] == 's' {
				b.WriteByte(' ')
				s = s[2:]
				continue
			}
			// systemd 252 also escapes what a shell would take as special
			if len(s) > 1 && strings.IndexByte("$;`!\"'&|<>(){}*?~# ", s[1]) >= 0 {
				b.WriteByte(s[1])
				s = s[2:]
				continue
			}
			r, multi, tail, err := strconv.UnquoteChar(s, quote)
			if err != nil {
				return "", "", fmt.Errorf("bad escape in %q", s)
			}
			if multi {
				b.WriteRune(r)
			} else {
				b.WriteByte(byte(r))
			}
			s = tail
		case quote != 0 && c == quote:
			return b.String(), s[1:], nil
		case quote == 0 && c == ' ':
			return b.String(), s, nil
		default:
			b.WriteByte(c)
			s = s[1:]
		}
	}
	if quote != 0 {
		return "", "", errors.New("a quote is not closed")
	}
	return b.String(), "", nil
}

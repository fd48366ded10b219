//go:build boot

package boot

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// turn is one turn of a conversation at a terminal: wait until the screen shows
// text, run a script (the terminal is $tty), type keys (printf escapes).
type turn struct{ wait, keys, run string }

// converse runs a command on a terminal of its own and returns the screen,
// without carriage returns, and the command's status. The command must end by
// itself after the last turn.
func (f *fixture) converse(command string, turns ...turn) (string, int) {
	f.t.Helper()
	args := []string{"bash", "-c", `d=$(mktemp -d); mkfifo $d/keys; cmd=$1; shift
		script -qefc "tty >$d/tty; stty rows 33 cols 77; $cmd" /dev/null <$d/keys >$d/screen 2>&1 & p=$!
		exec 3>$d/keys
		while [ $# -gt 0 ]; do
			for i in {1..1200}; do [ -z "$1" ] || grep -qaF -- "$1" $d/screen && break; kill -0 $p 2>/dev/null || break; sleep 0.05; done
			tty=$(cat $d/tty); eval "$3"; printf "$2" >&3; shift 3
		done
		for i in {1..1200}; do kill -0 $p 2>/dev/null || break; sleep 0.05; done
		kill $p 2>/dev/null && echo "(still running)" >>$d/screen
		wait $p; s=$?; cat $d/screen; rm -rf $d; echo "status=$s"`, "-", command}
	for _, t := range turns {
		args = append(args, t.wait, t.keys, t.run)
	}
	out := strings.ReplaceAll(f.Run(f.t, args...), "\r", "")
	i := strings.LastIndex(out, "status=")
	var status int
	if i < 0 {
		f.t.Fatalf("no status:\n%s", out)
	}
	if _, err := fmt.Sscanf(out[i:], "status=%d", &status); err != nil {
		f.t.Fatal(err)
	}
	lacks(f.t, "the screen", out, "(still running)")
	return out[:i], status
}

func quoted(args []string) string {
	var b strings.Builder
	for _, a := range args {
		b.WriteString(" '" + strings.ReplaceAll(a, "'", `'\''`) + "'")
	}
	return b.String()
}

// check list: runtime 35
// check list: cli 18
func TestInteractive(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	const shell = `test -t 0 && test -t 1 && test -t 2 && echo "all are terminals"; echo "[$TERM]"; stty size; while read l; do echo "heard <$l>"; [ "$l" = end ] && exit 7; done`
	interactive := func(script string, more ...string) string {
		return "TERM=vt220 rkt run --net=none --interactive" + quoted(bb(script, more...))
	}
	t.Run("on a terminal", func(t *testing.T) {
		screen, status := f.converse(interactive(shell), turn{wait: "33 77", keys: `hello\n`}, turn{wait: "heard <hello>", keys: `end\n`})
		// what is typed shows once by the terminal's echo, once by the app
		contains(t, "the screen", screen, "all are terminals\n", "[vt220]\n", "33 77\n", "\nhello\nheard <hello>\n", "\nend\nheard <end>\n")
		equal(t, "status", status, 7)
	})
	t.Run("as another user", func(t *testing.T) {
		screen, status := f.converse(interactive(`id -u; echo written >/dev/tty; echo by path >/dev/stdout`, "--user=1000", "--group=1000"))
		contains(t, "the screen", screen, "1000\n", "written\n", "by path\n")
		equal(t, "status", status, 0)
	})
	t.Run("prepared", func(t *testing.T) {
		uuid := f.rkt(append([]string{"prepare", "--quiet"}, bb(shell)...)...)
		screen, status := f.converse("rkt run-prepared --net=none --interactive "+uuid, turn{wait: "33 77", keys: `end\n`})
		contains(t, "the screen", screen, "all are terminals\n", "heard <end>\n")
		equal(t, "status", status, 7)
		contains(t, "rkt status", f.rkt("status", uuid), "app-app=7")
		uuid = f.rkt("prepare", "--quiet", busybox, "--name=one", busybox, "--name=two")
		f.refused(t, []string{"one app", "2"}, "run-prepared", "--net=none", "--interactive", uuid)
	})
	t.Run("window", func(t *testing.T) {
		screen, _ := f.converse(interactive(`trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.1; done`), turn{wait: "ready", run: "stty rows 44 cols 99 <$tty"})
		contains(t, "the screen", screen, "44 99\n")
	})
	t.Run("the escape kills the pod", func(t *testing.T) {
		screen, status := f.converse(interactive(`trap "" TERM INT; echo ready; while :; do sleep 1; done`), turn{wait: "ready", keys: `\035\035\035`})
		contains(t, "the screen", screen, "ready")
		if status == 0 {
			t.Errorf("status 0 of a pod that was killed")
		}
	})
	t.Run("pipes", func(t *testing.T) {
		run := append([]string{"rkt", "run", "--net=none", "--interactive"}, bb(`test -t 0 || echo pipes >&2; while read l; do echo "heard <$l>"; done; echo ended; exit 3`)...)
		out := f.Do(t.Context(), strings.NewReader("one\ntwo\n"), run...)
		equal(t, "standard output", out.Stdout, "heard <one>\nheard <two>\nended\n")
		contains(t, "standard error", out.Stderr, "pipes\n")
		equal(t, "status", out.Code, 3)
		out = f.Do(t.Context(), nil, "rkt", "run", "--net=none", "--interactive", busybox, "--exec=/no/such/program")
		contains(t, "standard error", out.Stderr, "/no/such/program")
		equal(t, "status", out.Code, 203)
		_, errs, code := f.trySh(`rkt run --net=none --interactive ` + quoted(bb("true")) + ` </`)
		contains(t, "a directory as standard input", errs, "is a directory")
		equal(t, "status", code, 254)
	})
	t.Run("not interactive", func(t *testing.T) {
		screen, status := f.converse("rkt run --net=none" + quoted(bb(`test -t 0 || echo no terminal; cat; echo end of input`)) + " | cat")
		contains(t, "the screen", screen, "no terminal", "end of input")
		equal(t, "status", status, 0)
	})
	t.Run("one image only", func(t *testing.T) {
		f.refused(t, []string{"--interactive", "one image", "2"}, "run", "--interactive", busybox, "--name=one", busybox, "--name=two")
		f.refused(t, []string{"--stdin", "exclude"}, append([]string{"run", "--interactive"}, bb("true", "--stdin=tty")...)...)
	})
	f.unchanged(before)
}

// reader echoes lines, and says what it is connected to.
const reader = `test -t 0 && echo "a terminal" || echo "no terminal"; while read l; do echo "heard <$l>"; echo "quietly $l" >&2; [ "$l" = end ] && break; done; echo last words >/dev/stdout; sleep 0.2`

// keep is an app that keeps the pod running.
func keep() m { return app("keep", forever(0)) }

// check list: runtime 36
// check list: cli 38
func TestAttachStreams(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.declare("att", pod(app("app", reader, m{"stdin": "stream", "stdout": "stream", "stderr": "log"}), keep()))
	f.start("att")
	machine := func(args ...string) string {
		return f.Run(t, append([]string{"systemctl", "-M", "att"}, args...)...)
	}

	t.Run("endpoints", func(t *testing.T) {
		var got any
		if err := json.Unmarshal([]byte(f.rkt("attach", "--app=app", "--mode=list", "att")), &got); err != nil {
			t.Fatal(err)
		}
		equal(t, "endpoints", got, any(m{"version": 1.0, "targets": []any{
			m{"name": "stdin", "domain": "unix", "address": "/rkt/iottymux/app/sock-stdin"},
			m{"name": "stdout", "domain": "unix", "address": "/rkt/iottymux/app/sock-stdout"}}}))
		equal(t, "the same to others", f.sh(`cat /proc/$(machinectl show --value -p Leader att)/root/rkt/iottymux/app/endpoints`), f.rkt("attach", "--app=app", "--mode=list", "att")+"\n")
	})
	t.Run("refused", func(t *testing.T) {
		f.refused(t, []string{"several apps", "--app"}, "attach", "att")
		f.refused(t, []string{"no app", "other"}, "attach", "--app=other", "att")
		f.refused(t, []string{"nothing to attach to"}, "attach", "--app=keep", "att")
		for mode, want := range map[string]string{"": "--mode", "x": "--mode", "tty,stdin": "same time", "stderr": "stdin, stdout", "tty": "stdin, stdout", "stdin,,": "--mode"} {
			f.refused(t, []string{want}, "attach", "--app=app", "--mode="+mode, "att")
		}
	})
	t.Run("several clients", func(t *testing.T) {
		// what was written before ("no terminal") is not repeated
		f.sh(`rm -f /run/att.*; mkfifo /run/att.in
			rkt attach --app=app --mode=stdout att >/run/att.1 & one=$!
			rkt attach --app=app att </run/att.in >/run/att.2 & two=$!
			exec 3>/run/att.in
			for i in {1..1200}; do
				echo first >&3
				grep -q 'heard <first>' /run/att.1 && grep -q 'heard <first>' /run/att.2 && break
				sleep 0.1
			done
			kill $one; wait $one; echo "one left with $?" >>/run/att.1
			echo second >&3
			for i in {1..1200}; do grep -q 'heard <second>' /run/att.2 && break; sleep 0.05; done
			exec 3>&-
			kill $two; wait $two; echo "two left with $?" >>/run/att.2`)
		one, two := f.Read(t, "/run/att.1"), f.Read(t, "/run/att.2")
		contains(t, "the first client", one, "heard <first>\none left with 0\n")
		lacks(t, "the first client", one, "second", "terminal")
		contains(t, "the second client", two, "heard <first>\nheard <second>\ntwo left with 0\n")
		lacks(t, "the second client", two, "terminal")
		equal(t, "the app after all have left", strings.TrimSpace(machine("is-active", "app.service")), "active")
		contains(t, "the journal", f.appLog("att", "app"), "quietly first", "quietly second")
		lacks(t, "the journal", f.appLog("att", "app"), "heard", "no terminal")
	})
	t.Run("on a terminal", func(t *testing.T) {
		screen, status := f.converse("rkt attach --app=app att; echo left with $?; stty -a | grep -o '.icanon'", turn{keys: `typed\n`}, turn{wait: "heard <typed>", keys: `\004`})
		contains(t, "the screen", screen, "heard <typed>\n", "left with 0\n", " icanon")
		equal(t, "status", status, 0)
	})
	t.Run("restart", func(t *testing.T) {
		for range 2 {
			machine("restart", "app.service")
			out := f.Do(t.Context(), strings.NewReader("again\nend\n"), "rkt", "attach", "--app=app", "att")
			// auto ends with the app; the first lines may have been written before the client was there
			contains(t, "output", out.Stdout, "heard <again>\n", "heard <end>\n", "last words\n")
			equal(t, "status", out.Code, 0)
			machine("start", "app.service")
		}
		machine("stop", "app.service")
		helpers := `systemctl -M att list-units --plain --no-legend --state=active 'iomux@*' 'ttymux@*' | wc -l`
		f.Eventually(t, soon, "bash", "-c", `[ "$(`+helpers+`)" = 0 ]`)
		equal(t, "processes", f.sh(`pgrep -c -f 'rkt-stage2 (io|tty)mux' || true`), "0\n")
		out, errs, code := f.Try("rkt", "attach", "--app=app", "att")
		if code == 0 {
			t.Errorf("attached to an app that is stopped: %s%s", out, errs)
		}
		machine("start", "app.service")
		equal(t, "with nobody attached", strings.TrimSpace(machine("is-active", "app.service")), "active")
	})
	t.Run("the helper is killed", func(t *testing.T) {
		machine("restart", "app.service")
		pid := machine("show", "--value", "-p", "MainPID", "app.service")
		machine("kill", "-s", "KILL", "iomux@app.service")
		f.Eventually(t, soon, "bash", "-c", `[ "$(systemctl -M att show --value -p NRestarts iomux@app.service)" = 1 ] && systemctl -M att -q is-active iomux@app.service`)
		equal(t, "the app", machine("show", "--value", "-p", "MainPID", "app.service"), pid)
		out := f.Do(t.Context(), strings.NewReader("another\nend\n"), "rkt", "attach", "--app=app", "att")
		contains(t, "output", out.Stdout, "heard <another>\n", "last words\n")
		machine("start", "app.service")
	})
	t.Run("a slow client", func(t *testing.T) {
		f.declare("slow", pod(app("app", `while read l; do echo "$l"; [ "$l" = go ] && break; done; head -c 20000000 /dev/zero | tr '\0' 'x' | fold -w 100; echo; echo done >&2; sleep 3600`, m{"stdin": "stream", "stdout": "stream"})))
		f.start("slow")
		// one client takes the first line and no more
		f.sh(`setsid bash -c 'rkt attach --mode=stdout slow | { read l; touch /run/att.first; while [ ! -e /run/att.stop ]; do sleep 0.1; done; }' >/dev/null 2>&1 &
			for i in {1..1200}; do echo try | rkt attach --mode=stdin slow; [ -e /run/att.first ] && break; sleep 0.1; done
			echo go | rkt attach --mode=stdin slow`)
		f.waitLog("slow", "app", "done")
		f.waitLog("slow", "app", "does not take the output fast enough")
		f.sh("touch /run/att.stop")
		f.stop("slow")
	})
	f.stop("att")
	f.forget("att", "slow")
	f.sh("rm -f /run/att.*")
	f.unchanged(before)
}

// check list: runtime 36
// check list: cli 38
func TestAttachTerminal(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.declare("tty", pod(app("app", `stty size; ls -ln $(tty) | cut -c1-30; echo "[$TERM]" >/dev/tty; `+reader, m{"stdin": "tty", "stdout": "tty", "stderr": "log", "user": "1000", "group": "1000"}), keep()))
	f.start("tty")
	t.Run("a terminal", func(t *testing.T) {
		screen, status := f.converse("rkt attach --app=app tty; echo left with $?; stty -a | grep -o '.icanon'", turn{keys: `one\n`}, turn{wait: "heard <one>", keys: `\035\035\035`})
		contains(t, "the screen", screen, "one\nheard <one>\n", "detached\n", "left with 0\n", " icanon")
		equal(t, "status", status, 0)
		contains(t, "the journal", f.appLog("tty", "app"), "quietly one")
	})
	t.Run("restart, with the size of the window", func(t *testing.T) {
		f.Run(t, "systemctl", "-M", "tty", "restart", "app.service")
		screen, _ := f.converse("rkt attach --app=app tty; echo left with $?", turn{keys: `end\n`})
		contains(t, "the screen", screen, "heard <end>\n", "last words\n", "left with 0\n")
		f.Run(t, "systemctl", "-M", "tty", "start", "app.service")
	})
	t.Run("window", func(t *testing.T) {
		f.declare("win", pod(app("app", `trap 'stty size' WINCH; while :; do sleep 0.1; done`, m{"stdin": "tty", "stdout": "tty", "stderr": "tty"})))
		f.start("win")
		screen, _ := f.converse("rkt attach win", turn{wait: "33 77", run: "stty rows 44 cols 99 <$tty"}, turn{wait: "44 99", keys: `\035\035\035`})
		contains(t, "the screen", screen, "33 77\n", "44 99\n")
		// Ctrl-C is a character for the app's terminal, whose foreground the app is
		screen, status := f.converse("rkt attach win", turn{wait: "33 77", keys: `\003`})
		equal(t, "status", status, 0)
		lacks(t, "the screen", screen, "detached")
		f.ended("rkt@win")
		f.forget("win")
	})
	t.Run("killed", func(t *testing.T) {
		f.Run(t, "systemctl", "-M", "tty", "restart", "app.service")
		screen, _ := f.converse(`rkt attach --app=app tty; stty -a | grep -o '.icanon'`, turn{keys: `here\n`}, turn{wait: "heard <here>", run: "pkill -TERM -x attach"})
		contains(t, "the screen", screen, " icanon")
		equal(t, "the app", f.sh("systemctl -M tty is-active app.service"), "active\n")
	})
	f.stop("tty")
	f.forget("tty")
	f.unchanged(before)
}

// TestStdioFlags: the flags of the command line, and what only drops.
func TestStdioFlags(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.refused(t, []string{"--stdin", `"log"`}, append([]string{"run"}, bb("true", "--stdin=log")...)...)
	f.refused(t, []string{"--stdout", `"interactive"`}, append([]string{"prepare"}, bb("true", "--stdout=interactive")...)...)
	uuid := f.rkt(append([]string{"prepare", "--quiet"}, bb("true", "--stdin=stream", "--stdout=tty", "--stderr=null")...)...)
	contains(t, "the manifest", f.rkt("cat-manifest", uuid), `"coreos.com/rkt/stage2/stdin"`, `"coreos.com/rkt/stage2/stdout"`, `"coreos.com/rkt/stage2/stderr"`, `"tty"`, `"stream"`, `"null"`)
	stdout, stderr, code := f.Try(append([]string{"rkt", "run", "--net=none"}, bb("echo dropped; echo dropped >/dev/stdout; echo kept >&2", "--stdout=null")...)...)
	equal(t, "status", code, 0)
	equal(t, "output", outputs(stdout + stderr)["app"], "kept\n")
	_, _, code = f.Try(append([]string{"rkt", "run", "--net=none"}, bb("exit 5", "--stdin=tty", "--stdout=stream", "--stderr=tty")...)...)
	equal(t, "status of an app nobody is attached to", code, 5)
	// why an app cannot start is said where it can be read
	stdout, stderr, _ = f.Try(append([]string{"rkt", "run", "--net=none"}, bb("true", "--stdout=null", "--stderr=null", "--working-dir=/no/such/dir")...)...)
	contains(t, "output", stdout+stderr, "/no/such/dir")
	f.unchanged(before)
}

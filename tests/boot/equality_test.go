//go:build boot

package boot

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/stage1/filter"
)

// probe prints everything that confines the process that runs it, a fact per
// line. What it reads of /proc/self is of the program that reads, which is a child.
const probe = `umask; grep -E '^(Uid|Gid|Groups|Cap[A-Za-z]*|NoNewPrivs|Seccomp|Seccomp_filters|Speculation_Store_Bypass):' /proc/self/status
for n in cgroup ipc mnt net pid time user uts; do echo "$n $(readlink /proc/self/ns/$n)"; done
echo "cgroup $(cat /proc/self/cgroup)"; echo "label $(cat /proc/self/attr/current 2>/dev/null)"
sed 's/  */ /g' /proc/self/limits; echo "oom $(cat /proc/self/oom_score_adj)"; echo "root $(stat -c %d:%i /)"; cut -d' ' -f3- /proc/self/mountinfo`

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// facts is what a probe printed, without the noise of a terminal.
func facts(text string) []string {
	text = strings.TrimPrefix(strings.ReplaceAll(text, "\r", ""), "^@") // typed by script(1) without input
	return strings.Split(strings.TrimSpace(text), "\n")
}

// service runs a command as a service of the host: its own manager has filters
// that the test's commands, which come from outside, have not.
func (f *fixture) service(command ...string) string {
	f.t.Helper()
	return f.Run(f.t, append([]string{"systemd-run", "--quiet", "--wait", "--pipe", "--collect"}, command...)...)
}

// TestConfinementEquality: whatever is run in an app is confined exactly as
// the app's own process is, by whichever way it came.
func TestConfinementEquality(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	const write = `(` + probe + `) >/var/tmp/`
	handler := func(name string) m {
		return m{"name": name, "exec": []string{"/bin/sh", "-c", write + name}}
	}
	main := write + `main; touch /var/tmp/up; ` + forever(0)
	image := f.image("probe-handlers", "busybox", "--name", "example.com/probe-handlers", "--manifest", text(t, m{"app": m{"exec": []string{"/bin/sh", "-c", main},
		"user": "0", "group": "0", "eventHandlers": []m{handler("pre-start"), handler("post-stop")}}}))
	f.declare("equal", pod(
		app("root", main),
		app("user", main, m{"user": "redis", "group": "redis", "supplementaryGIDs": []int{400, 500}, "workingDirectory": "/var/tmp"}),
		app("limited", main, m{"isolators": []m{
			{"name": "os/linux/oom-score-adj", "value": 321},
			{"name": "os/linux/no-new-privileges", "value": true},
			{"name": "os/linux/capabilities-retain-set", "value": m{"set": []string{"CAP_CHOWN", "CAP_KILL"}}},
		}}),
		m{"name": "handled", "image": image},
	))
	f.start("equal")
	rootfs := func(app string) string {
		out := f.Run(t, "bash", "-c", `ls -d /var/lib/rkt/pods/run/"$1"/overlay/*/upper/"$2"`, "-", f.uuid("equal"), app)
		return strings.TrimSpace(out)
	}
	for _, name := range []string{"root", "user", "limited", "handled"} {
		f.Eventually(t, soon, "test", "-e", rootfs(name)+"/var/tmp/up")
		want := facts(f.Read(t, rootfs(name)+"/var/tmp/main"))
		if len(want) < 40 {
			t.Fatalf("app %s: the probe found only %q", name, want)
		}
		compare := func(way, text string) {
			t.Helper()
			got := facts(text)
			if !slices.Equal(got, want) {
				equal(t, way+" of app "+name, got, want)
			}
		}
		compare("rkt enter", f.service("rkt", "enter", "--app="+name, "equal", "/bin/sh", "-c", probe))
		compare("rkt exec", f.service("rkt", "exec", "equal", "--app="+name, "--", "/bin/sh", "-c", probe))
		// script has no input: the terminal shows its end as ^@, at some moment
		terminal := f.service("script", "-qec", "rkt enter --app="+name+" equal /bin/sh -c '"+strings.ReplaceAll(probe, "'", `'\''`)+"'", "/dev/null")
		compare("rkt enter with a terminal", strings.ReplaceAll(terminal, "^@", ""))
		if name == "handled" {
			compare("pre-start", f.Read(t, rootfs(name)+"/var/tmp/pre-start"))
		}
	}
	// machinectl runs commands in the first app
	want := facts(f.Read(t, rootfs("root")+"/var/tmp/main"))
	equal(t, "machinectl shell", facts(f.Run(t, "machinectl", "-q", "shell", "equal", "/bin/sh", "-c", probe)), want)
	upper := rootfs("handled")
	handled := facts(f.Read(t, upper+"/var/tmp/main"))
	f.stop("equal")
	ended := f.Run(t, "bash", "-c", `cat /var/lib/rkt/pods/exited-garbage/*/overlay/*/upper/handled/var/tmp/post-stop`)
	equal(t, "post-stop", facts(ended), handled)
	f.forget("equal")
	f.unchanged(before)
}

// TestFilterEquality takes the system call filters of an app and of what is
// run in it out of the kernel: the same programs, in the same order.
func TestFilterEquality(t *testing.T) {
	f := open(t)
	f.declare("same", pod(app("app", "exec sleep 454545", m{"user": "redis", "group": "redis"})))
	f.start("same")
	f.sh(`for c in "enter same /bin/sleep 464646" "exec same /bin/sleep 474747"; do systemd-run -q --collect rkt $c; done; machinectl -q shell same /bin/sleep 484848 </dev/null >/dev/null 2>&1 &`)
	t.Cleanup(func() { f.Try("pkill", "-f", "sleep 4[678]4[678]4[678]") })
	of := func(arg string) [][]byte {
		var out [][]byte
		pid := strings.TrimSpace(f.Eventually(t, soon, "bash", "-c", fmt.Sprintf(`p=$(pgrep -f '^(/bin/)?sleep %s'); grep -q ^Seccomp:.2 /proc/$p/status && echo $p`, arg)))
		for _, p := range filters(t, podPID(t, f, pid)) {
			out = append(out, filter.Program(p).Marshal())
		}
		return out
	}
	want := of("454545")
	if len(want) < 2 {
		t.Fatalf("the app has %d filters", len(want))
	}
	for _, arg := range []string{"464646", "474747", "484848"} {
		equal(t, "the filters of sleep "+arg, of(arg), want)
	}
}

// podPID finds a process of a pod in the test host by its number there.
func podPID(t *testing.T, f *fixture, pid string) int {
	t.Helper()
	return outerPID(t, f.Host, pid)
}

// TestExec: terminals, pipes, signals, statuses.
func TestExec(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.declare("exec", pod(app("one", forever(0), m{"workingDirectory": "/var/tmp", "user": "redis", "group": "redis"}), app("two", forever(0))))
	f.start("exec")
	equal(t, "working directory of exec", f.rkt("exec", "--app=one", "exec", "/bin/pwd"), "/var/tmp")
	equal(t, "working directory of enter", f.rkt("enter", "--app=one", "exec", "/bin/pwd"), "/")
	equal(t, "another user", f.rkt("exec", "exec", "--app=one", "--user=root", "/bin/id", "-u"), "0")
	equal(t, "another user and group", f.rkt("enter", "--app=one", "--user=7:8", "exec", "/bin/sh", "-c", "echo $(id -u):$(id -g)"), "7:8")
	f.refused(t, []string{"nosuch", "passwd"}, "exec", "--app=one", "--user=nosuch", "exec", "/bin/true")
	equal(t, "flags of the command", f.rkt("exec", "exec", "--app=two", "/bin/echo", "--app=x", "-n", "--", "y"), "--app=x -n -- y")
	stdout, _, code := f.trySh(`echo in | rkt exec exec --app=two -- /bin/sh -c 'cat; [ -t 0 ] || echo pipe; exit 9'`)
	if stdout != "in\npipe\n" || code != 9 {
		t.Errorf("through pipes: %q, status %d", stdout, code)
	}
	// A signal reaches the command; one that ends it ends rkt, too.
	stdout, _, code = f.trySh(`rkt exec exec --app=two -- /bin/sh -c 'trap "echo caught; exit 3" TERM; echo up; while :; do sleep 0.1; done' >/run/exec-out & p=$!
		for i in {1..1200}; do grep -q up /run/exec-out && break; sleep 0.05; done; kill -TERM $p; wait $p; s=$?; cat /run/exec-out; rm -f /run/exec-out; exit $s`)
	if stdout != "up\ncaught\n" || code != 3 {
		t.Errorf("a signal: %q, status %d", stdout, code)
	}
	_, _, code = f.trySh(`rkt exec exec --app=two -- /bin/sh -c 'kill -KILL $$'`)
	equal(t, "status after a signal", code, 128+9)
	out := f.Run(t, "script", "-qec", "stty rows 33 cols 77; rkt exec exec --app=one -- /bin/sh -c 'tty; stty size; test -r $(tty) && echo mine'", "/dev/null")
	contains(t, "a terminal", out, "/dev/pts/", "33 77", "mine")
	_, _, code = f.Try("script", "-qec", "rkt exec exec --app=one -- /bin/sh -c 'exit 21'", "/dev/null")
	equal(t, "status through a terminal", code, 21)
	_, stderr, code := f.Try("rkt", "exec", "exec", "--app=one", "/nonexist")
	if code != 203 || !strings.Contains(stderr, `Error: Unable to open "/nonexist": No such file or directory`) {
		t.Errorf("a missing program: status %d, %q", code, stderr)
	}
	f.refused(t, []string{"exec takes a pod and a command"}, "exec", "exec")
	// Nothing is left behind of what was entered.
	f.stop("exec")
	f.forget("exec")
	f.unchanged(before)
}

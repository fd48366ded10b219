//go:build boot

package boot

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rkt-systemd/rkt/internal/hostile"
)

// decoy is a directory of the host that images try to reach. The function
// returned asserts that it, and some other files of the host, are as they were.
func (f *fixture) decoy(t *testing.T) (dir string, unchanged func()) {
	t.Helper()
	dir = "/var/tmp/decoy"
	f.sh(`rm -rf ` + dir + `; mkdir -p ` + dir + `/sub; cd ` + dir + `
		for n in secret hosts resolv.conf hostname mtab sub/x; do echo "SECRET OF THE HOST" >$n; done
		echo 'victim:x:4242:4242:SECRET OF THE HOST:/:/bin/sh' >passwd; echo 'victim:x:4242:victim' >group; chmod -R go-w .`)
	t.Cleanup(func() { f.sh("rm -rf " + dir) })
	look := func() string {
		return f.sh(`find ` + dir + ` /etc/passwd /etc/group /etc/hosts /etc/resolv.conf /etc/hostname -printf '%p %y %m %U:%G %s %C@\n' 2>/dev/null | sort
			find ` + dir + ` /etc/passwd /etc/group -type f -exec sha256sum {} + | sort
			find / -xdev -name rkt-stage2 -type f -exec sha256sum {} + | sort -u -k1,1 | cut -c1-64`)
	}
	before := look()
	return dir, func() {
		t.Helper()
		equal(t, "the host's files", look(), before)
	}
}

// hostileImages makes images of busybox with hostile root file systems and
// copies them into the host.
func (f *fixture) hostileImages(t *testing.T, roots []hostile.Root) []string {
	t.Helper()
	dir, out := t.TempDir(), t.TempDir()
	run := func(args ...string) {
		t.Helper()
		if o, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, o)
		}
	}
	base := filepath.Join(dir, "busybox.aci")
	run("../images/mkimage", "--suite", f.suite(), "busybox", base)
	var there []string
	for i, r := range roots {
		tree := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(tree, 0o755); err != nil {
			t.Fatal(err)
		}
		run("tar", "-C", tree, "-xzf", base)
		if err := r.Make(filepath.Join(tree, "rootfs")); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("hostile%d.aci", i)
		// a sparse file stays one in the archive, and is unpacked in full
		run("tar", "-C", tree, "-czf", filepath.Join(out, name), "manifest", "rootfs")
		there = append(there, "/var/tmp/hostile/"+name)
	}
	f.sh("rm -rf /var/tmp/hostile")
	f.Copy(t, out, "/var/tmp/hostile")
	t.Cleanup(func() { f.sh("rm -rf /var/tmp/hostile; rkt image gc --grace-period=0 >/dev/null 2>&1 || true") })
	return there
}

// limited runs rkt within a time that only what hangs needs.
func (f *fixture) limited(t *testing.T, args ...string) (string, int) {
	t.Helper()
	stdout, stderr, code := f.Try(append([]string{"timeout", "-k", "5", "40", "rkt"}, args...)...)
	if code == 124 || code == 137 {
		t.Errorf("rkt %q hangs", args)
	}
	return stdout + stderr, code
}

// TestHostileRoots runs images that put links, devices and worse where a pod
// mounts: the app runs in its root, or the error names the culprit.
func TestHostileRoots(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	decoy, unchanged := f.decoy(t)
	wanted := []string{"link at /dev", "link to the first process's root at /proc", "file at /sys", "FIFO at /run", "link at the journal", "links at nodes", "files at nodes",
		"wrong devices at nodes", "links below proc and sys", "link at /etc/hosts", "link of proc at /etc/resolv.conf", "endless file at /etc/hosts", "link at /etc",
		"link at /etc/mtab", "link of proc at /etc/passwd", "link to an endless /etc/group", "FIFO at /etc/passwd", "many users in /etc/passwd"}
	var roots []hostile.Root
	for _, r := range hostile.Roots(decoy) {
		if slices.Contains(wanted, r.Name) {
			roots = append(roots, r)
		}
	}
	if len(roots) != len(wanted) {
		t.Fatalf("%d roots, not %d", len(roots), len(wanted))
	}
	images := f.hostileImages(t, roots)
	script := `stat -c 'null %F %t:%T' /dev/null; for f in /etc/* /dev/* /run/* /run/systemd/* /run/systemd/journal/*; do [ -f $f ] && head -c 300 $f; done; ls -d ` + decoy + `; echo confined`
	for i, r := range roots {
		t.Run(r.Name, func(t *testing.T) {
			all, code := f.limited(t, "--insecure-options=image", "run", "--net=none", "--dns=192.0.2.1", "--hosts-entry=192.0.2.2=x", images[i],
				"--name=app", "--exec=/bin/sh", "--", "-c", script)
			out := outputs(all)["app"]
			culprit := ""
			for _, e := range r.Entries {
				if f := strings.Fields(e); f[0] != "d" && strings.Contains(all, strings.TrimPrefix(f[1], "/")) {
					culprit = f[1]
				}
			}
			switch {
			case code == 0 && (!strings.Contains(out, "confined\n") || !strings.Contains(out, "null character special file 1:3\n")):
				t.Errorf("not as it must be:\n%s", all)
			case code != 0 && culprit == "" && (r.Culprit == "" || !strings.Contains(all, r.Culprit)):
				t.Errorf("status %d, and the error names none of %q:\n%s", code, r.Entries, all)
			}
			t.Logf("status %d", code)
			lacks(t, "the output", all, "SECRET OF THE HOST", "panic:")
			// the databases are read for a name
			all, code = f.limited(t, "--insecure-options=image", "run", "--net=none", images[i], "--name=app", "--user=victim", "--group=victim", "--exec=/bin/id")
			if code == 0 || !strings.Contains(all, "victim") && !strings.Contains(all, "/") {
				t.Errorf("as the user of the host: status %d\n%s", code, all)
			}
			lacks(t, "the output", all, "SECRET OF THE HOST", "4242", "panic:")
			unchanged()
		})
	}
	f.unchanged(before)
}

// leak opens 32 descriptors, directories and files of the host, for the
// command that follows.
const leak = `for n in $(seq 3 4 34); do eval "exec $n</; exec $((n+1))</etc/shadow; exec $((n+2))</var/tmp/decoy; exec $((n+3))</etc"; done; `

// TestLeakedDescriptors: what the caller of rkt left open is out of the app's
// reach, by its working directory and by /proc.
func TestLeakedDescriptors(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	_, unchanged := f.decoy(t)
	t.Run("run", func(t *testing.T) {
		// Four at a time: 64 pods.
		script := leak + `one() { o=$(timeout -k 5 60 rkt run --net=none ` + busybox + ` --name=app --working-dir=/proc/self/fd/$1 --exec=/bin/sh -- -c 'echo "here $(ls -a . | tr "\n" " ")"; cat secret shadow 2>/dev/null; true' 2>&1); s=$?
			case "$o" in *SECRET*|*root:*|*decoy*) echo "$1: $o";; esac
			if [ $s -eq 0 ]; then case "$o" in *'here '*) echo "$1 ran: $o";; *) echo "$1: status 0: $o";; esac
			else case "$o" in *"/proc/self/fd/$1"*) ;; *) echo "$1: status $s: $o";; esac; fi; }
			for n in $(seq 3 4 66); do for i in 0 1 2 3; do one $((n+i)) & done; wait; done`
		stdout, stderr, code := f.trySh(script)
		if code != 0 || stdout != "" {
			t.Errorf("status %d:\n%s%s", code, stdout, stderr)
		}
	})
	t.Run("exec and enter", func(t *testing.T) {
		f.declare("leak", pod(app("one", forever(0))))
		f.start("leak")
		for _, verb := range []string{"exec --app=one leak --", "enter --app=one leak"} {
			out := f.sh(leak + `timeout 60 rkt ` + verb + ` /bin/sh -c 'for n in $(seq 3 66); do cd /proc/self/fd/$n 2>/dev/null && ls -a . ; cat /proc/self/fd/$n 2>/dev/null; done; echo done'`)
			if !strings.HasSuffix(out, "done\n") || strings.Contains(out, "decoy") || strings.Contains(out, "root:") || strings.Contains(out, "secret") {
				t.Errorf("%s: %s", verb, out)
			}
			for _, n := range []string{"4", "16"} {
				stdout, stderr, code := f.trySh(leak + `timeout 60 rkt ` + verb + ` /proc/self/fd/` + n)
				if code == 0 || strings.Contains(stdout+stderr, "root:") {
					t.Errorf("%s /proc/self/fd/%s: status %d\n%s%s", verb, n, code, stdout, stderr)
				}
			}
		}
		f.stop("leak")
		f.forget("leak")
	})
	unchanged()
	f.unchanged(before)
}

// TestLauncherIsOutOfReach: no image gets at the program that starts it, not
// by running it, and not by writing to what a process of the pod runs.
func TestLauncherIsOutOfReach(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	_, unchanged := f.decoy(t)
	images := f.hostileImages(t, []hostile.Root{{Entries: []string{"l /self /proc/self/exe", "f /script #!/proc/self/exe\n", "f /loader #!/self\n"}}})
	for _, program := range []string{"/proc/self/exe", "/self", "/proc/1/exe", "/proc/self/root/self"} {
		all, code := f.limited(t, "--insecure-options=image", "run", "--net=none", images[0], "--name=app", "--exec="+program, "--", "app", "app")
		if code == 0 || !strings.Contains(all, program) {
			t.Errorf("running %s: status %d\n%s", program, code, all)
		}
	}
	for _, program := range []string{"/script", "/loader"} {
		if all, code := f.limited(t, "--insecure-options=image", "run", "--net=none", images[0], "--name=app", "--exec="+program); code == 0 {
			t.Errorf("running %s: status 0\n%s", program, all)
		}
	}
	handlers := f.image("selfhandler", "busybox", "--name", "example.com/selfhandler", "--manifest",
		`{"app": {"eventHandlers": [{"name": "pre-start", "exec": ["/proc/self/exe", "app", "app"]}]}}`)
	if all, code := f.limited(t, "run", "--net=none", handlers, "--name=app", "--exec=/bin/true"); code == 0 || !strings.Contains(all, "/proc/self/exe") {
		t.Errorf("a handler: status %d\n%s", code, all)
	}
	unchanged()

	// An app with all capabilities opens whatever a process of the pod runs, and writes when the process is gone.
	attack := `trap 'exit 0' TERM; echo started; while :; do for p in /proc/[0-9]*; do
		[ $p = /proc/$$ ] && continue
		(: >$p/exe) 2>/dev/null && case $(readlink $p/exe) in *busybox*|"") ;; *) echo "WROTE $(readlink $p/exe)";; esac
		exec 3<$p/exe || continue; case $(readlink /proc/self/fd/3) in *busybox*) ;; *stage2*) (sleep 0.1; : >/proc/$$/fd/3) 2>/dev/null && echo "WROTE LATER";; esac; exec 3<&-
	done 2>/dev/null; done`
	p := pod(app("evil", attack), app("one", forever(0)))
	p["rkt"] = m{"net": "none", "insecureOptions": []string{"all-run"}, "privateUsers": false}
	f.declare("evil", p)
	f.start("evil")
	f.waitLog("evil", "evil", "started")
	f.sh(`for i in $(seq 20); do timeout 60 rkt exec --app=one evil -- /bin/true || echo "exec failed: $?"; done`)
	lacks(t, "the attacker's log", f.appLog("evil", "evil"), "WROTE")
	f.stop("evil")
	f.forget("evil")
	unchanged()
	f.unchanged(before)
}

// TestHostileUsers: numbers that are none.
func TestHostileUsers(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.declare("ids", pod(app("one", forever(0))))
	f.start("ids")
	for _, id := range []string{"-1", "4294967296", "4294967295", "0x0", "+0", " 0", "0 ", "0\n"} {
		for _, flags := range [][]string{{"--user=" + id}, {"--group=" + id}, {"--supplementary-gids=" + id}} {
			all, code := f.limited(t, append([]string{"run", "--net=none"}, bb("id", flags...)...)...)
			if code == 0 || !strings.Contains(all, strings.TrimSpace(id)) {
				t.Errorf("%q: status %d\n%s", flags, code, all)
			}
		}
		for _, user := range []string{id, "0:" + id} {
			all, code := f.limited(t, "exec", "--app=one", "--user="+user, "ids", "--", "/bin/id")
			if code == 0 || !strings.Contains(all, strings.TrimSpace(id)) {
				t.Errorf("exec --user=%q: status %d\n%s", user, code, all)
			}
		}
	}
	out := f.script(t, "id -u; id -g", nil, "--user=2147483648", "--group=4294967294")
	equal(t, "large numbers", out, "2147483648\n4294967294\n")
	f.stop("ids")
	f.forget("ids")
	f.unchanged(before)
}

// TestHostileArguments: what is said on the command line and in pod files
// arrives byte for byte.
//
// check list: runtime 14; cli 5
func TestHostileArguments(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	var args []string
	for i, s := range hostile.Strings() {
		// every eighth, and of the long ones what fits into one command
		if i%8 == 3 && len(s) < 20_000 && !strings.Contains(s, "\x00") && utf8.ValidString(s) && s != "---" {
			args = append(args, s)
		}
	}
	args = append(args, "", "a\nb", `'`, `"`, "$", "%i", "---x", strings.Repeat("a", 64<<10))
	if len(args) < 40 {
		t.Fatalf("only %d strings", len(args))
	}
	want := ""
	for _, a := range args {
		want += fmt.Sprintf("%x\n", sha256.Sum256([]byte(a)))
	}
	script := `for a; do printf %s "$a" | sha256sum | cut -c1-64; done`
	out, all, code := f.runPod(append(append([]string{"--net=none"}, bb(script)...), append([]string{"-"}, args...)...)...)
	if code != 0 || out != want {
		t.Errorf("run: status %d, differing:\n%s", code, firstDifference(args, want, out))
		t.Logf("%.2000s", all)
	}
	environment := m{}
	show := ""
	for i, a := range args {
		environment[fmt.Sprintf("V%d", i)] = a
		show += fmt.Sprintf("printf %%s \"$V%d\" | sha256sum | cut -c1-64\n", i)
	}
	f.declare("args", pod(m{"name": "app", "image": busybox, "exec": append([]string{"/bin/sh", "-c", script, "-"}, args...)}, app("env", show, m{"environment": environment})))
	f.Try("systemctl", "start", "rkt@args")
	equal(t, "the unit", f.ended("rkt@args"), "inactive")
	if got := f.appLog("args", "app"); got != want {
		t.Errorf("arguments of a pod file:\n%s", firstDifference(args, want, got))
	}
	if got := f.appLog("args", "env"); got != want {
		t.Errorf("environment of a pod file:\n%s", firstDifference(args, want, got))
	}
	f.forget("args")
	f.unchanged(before)
}

func firstDifference(args []string, want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range args {
		if i >= len(g) || w[i] != g[i] {
			return fmt.Sprintf("%d of %d lines, the first that differs is that of %.100q", len(g)-1, len(args), args[i])
		}
	}
	return "too many lines"
}

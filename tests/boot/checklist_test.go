//go:build boot

package boot

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

const podsDir = "/var/lib/rkt/pods"

// TestEnvironmentOfHandlers: who runs them, where, and with what.
//
// check list: runtime 11, 12, 17
func TestEnvironmentOfHandlers(t *testing.T) {
	f := open(t)
	handler := func(name string) string {
		return `{"name": "` + name + `", "exec": ["/bin/sh", "-c", "echo ` + name + ` $(id -u):$(id -g) $AC_APP_NAME $container ${AC_METADATA_URL-none}; echo ` + name + ` >>/tmp/order"]}`
	}
	image := f.image("handlerenv", "busybox", "--name", "example.com/handlerenv", "--manifest", `{"app": {"user": "1000", "group": "1000",
		"exec": ["/bin/sh", "-c", "echo main $(id -u):$(id -g) $AC_APP_NAME $container ${AC_METADATA_URL-none}; echo $PATH $HOME $USER $LOGNAME $SHELL; cat /tmp/order"],
		"eventHandlers": [`+handler("pre-start")+`,`+handler("post-stop")+`]}}`)
	before := f.snapshot()
	out, all, code := f.runPod("--net=none", image, "--name=app")
	want := "pre-start 0:0 app rkt none\nmain 1000:1000 app rkt none\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /root root root /bin/sh\npre-start\npost-stop 0:0 app rkt none\n"
	if code != 0 || out != want {
		t.Errorf("status %d, %q, want %q\n%s", code, out, want, all)
	}
	f.unchanged(before)
}

// TestSupplementaryGroups: those given, and the group itself.
//
// check list: runtime 16
func TestSupplementaryGroups(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	equal(t, "groups", f.script(t, "id -G", nil, "--supplementary-gids=400,500,1200"), "0 400 500 1200\n")
	f.unchanged(before)
}

// TestUsersByPosition: names, numbers, owners of paths, for the first and the
// last app, each alone, with and without private users.
//
// check list: runtime 15; cli 14
func TestUsersByPosition(t *testing.T) {
	f := open(t)
	image := f.image("users", "busybox", "--name", "example.com/users", "--manifest", `{"app": {"user": "200", "group": "300", "exec": ["/bin/sh", "-c", "echo $(id -u):$(id -g)"]}}`)
	before := f.snapshot()
	for _, private := range []string{"--private-users=false", "--private-users"} {
		for _, position := range []string{"first", "last"} {
			for _, c := range [][2]string{{"", "200:300"}, {"--user=0", "0:300"}, {"--group=0", "200:0"}, {"--user=redis", "999:300"}, {"--group=redis", "200:999"}, {"--user=/bin", "0:300"}, {"--group=/bin", "200:0"}} {
				args := []string{private, "--net=none"}
				var flags []string
				if c[0] != "" {
					flags = []string{c[0]}
				}
				// the other app does nothing and has a user of its own
				other := []string{image, "--name=other", "--exec=/bin/true"}
				one := append([]string{image, "--name=app"}, flags...)
				if position == "first" {
					args = append(append(args, one...), other...)
				} else {
					args = append(append(args, other...), one...)
				}
				if out, all, code := f.runPod(args...); code != 0 || out != c[1]+"\n" {
					t.Errorf("%s, %s, %q: status %d, %q, want %q\n%s", private, position, c[0], code, out, c[1], all)
				}
			}
		}
	}
	f.refused(t, []string{"nobody-there"}, "run", "--net=none", image, "--user=nobody-there")
	f.refused(t, []string{"/no/such"}, "run", "--net=none", image, "--group=/no/such")
	f.unchanged(before)
}

// TestPrograms: how they are found and named.
//
// check list: runtime 18; cli 6
func TestPrograms(t *testing.T) {
	f := open(t)
	dir := t.TempDir()
	writeFile(t, dir+"/noloader", "#!/no/such/loader\n")
	if err := os.Chmod(dir+"/noloader", 0o755); err != nil {
		t.Fatal(err)
	}
	image := f.image("programs", "busybox", "--name", "example.com/programs", "--file", dir+"/noloader:/bin/noloader")
	before := f.snapshot()
	run := func(want string, args ...string) {
		t.Helper()
		if out, all, code := f.runPod(append([]string{"--net=none", image, "--name=app"}, args...)...); code != 0 || out != want {
			t.Errorf("%q: status %d, %q, want %q\n%s", args, code, out, want, all)
		}
	}
	run("ran\n", "--exec=sh", "--", "-c", "echo ran")
	run("ran\n", "--exec=./sh", "--working-dir=/bin", "--", "-c", "echo ran")
	run("sh\n", "--exec=sh", "--environment=PATH=/none:/bin", "--", "-c", "cat /proc/$$/comm; true")
	run("/bin/sh\n", "--exec=/bin/sh", "--", "-c", "tr '\\0' '\\n' </proc/$$/cmdline | head -n 1")
	for program, want := range map[string]string{"/no/such": `Error: Unable to open "/no/such"`, "/bin/noloader": "/no/such/loader"} {
		_, all, code := f.runPod("--net=none", image, "--name=app", "--exec="+program)
		if code == 0 || !strings.Contains(all, want) {
			t.Errorf("%s: status %d\n%s", program, code, all)
		}
	}
	f.unchanged(before)
}

// TestVolumePrecedence: who says what is read-only, who shares, what is made.
//
// check list: runtime 20, 21, 24, 25; cli 10, 11
func TestVolumePrecedence(t *testing.T) {
	f := open(t)
	image := f.image("points", "busybox", "--name", "example.com/points", "--manifest", `{"app": {"exec": ["/bin/sh"], "mountPoints": [
		{"name": "rw", "path": "/rw", "readOnly": false}, {"name": "ro", "path": "/ro", "readOnly": true}, {"name": "plain", "path": "/plain"}]}}`)
	f.sh("mkdir -p /var/tmp/prec")
	t.Cleanup(func() { f.sh("rm -rf /var/tmp/prec") })
	before := f.snapshot()
	try := `for d in rw ro plain; do (echo x >/$d/f) 2>/dev/null && echo "$d written" || echo "$d refused"; done; (echo x >/f) 2>/dev/null && echo "root written" || echo "root refused"`
	for _, c := range []struct {
		what, want string
		args       []string
	}{
		{"nothing given", "rw written\nro refused\nplain written\nroot written\n", nil},
		{"read-only root", "rw written\nro refused\nplain written\nroot refused\n", []string{"--readonly-rootfs=true"}},
	} {
		out, all, code := f.runPod(append(append([]string{"--net=none", image, "--name=app"}, c.args...), "--exec=/bin/sh", "--", "-c", try)...)
		if code != 0 || out != c.want {
			t.Errorf("%s: status %d, %q, want %q\n%s", c.what, code, out, c.want, all)
		}
	}
	const source = ",kind=host,source=/var/tmp/prec"
	out, all, code := f.runPod("--net=none", "--volume=rw"+source+",readOnly=true", "--volume=ro"+source+",readOnly=false", "--volume=plain,kind=empty", image, "--name=app",
		"--readonly-rootfs=true", "--exec=/bin/sh", "--", "-c", try)
	if want := "rw refused\nro written\nplain written\nroot refused\n"; code != 0 || out != want {
		t.Errorf("the volume decides: status %d, %q, want %q\n%s", code, out, want, all)
	}
	_, all, code = f.runPod("--net=none", "--volume=e,kind=empty,mode=0123,uid=9991,gid=9992", "--mount=volume=e,target=/e/",
		busybox, "--name=one", "--exec=/bin/sh", "--", "-c", `stat -c '%a %u:%g' /e; echo shared >/e/.f; mv /e/.f /e/f`, "---",
		busybox, "--name=app", "--exec=/bin/sh", "--", "-c", `until [ -e /e/f ]; do sleep 0.05; done; cat /e/f`)
	apps := outputs(all)
	if code != 0 || apps["one"] != "123 9991:9992\n" || apps["app"] != "shared\n" {
		t.Errorf("a shared volume: status %d\n%s", code, all)
	}
	for _, target := range []string{"/a/b/../../../../../x/y", "x/y", "/new/deep/x/y"} {
		want := "755\nx/y\n"
		out, all, code := f.runPod(append([]string{"--net=none", "--volume=v" + source}, bb(`d=$(grep -o ' /[^ ]*x/y ' /proc/self/mountinfo | head -n 1); stat -c %a $(dirname $d); case $d in */x/y\ ) echo x/y;; esac`,
			"--mount=volume=v,target="+target)...)...)
		if code != 0 || out != want {
			t.Errorf("%s: status %d, %q\n%s", target, code, out, all)
		}
	}
	equal(t, "directories on the host", f.sh("ls -d /x /new 2>/dev/null || true"), "")
	f.refused(t, []string{`"v"`}, append([]string{"run", "--net=none", "--volume=v" + source, "--volume=v,kind=empty"}, bb("true")...)...)
	f.refused(t, []string{"/var/tmp/no-such"}, append([]string{"run", "--net=none", "--volume=v,kind=host,source=/var/tmp/no-such"}, bb("true", "--mount=volume=v,target=/v")...)...)
	f.unchanged(before)
}

// TestNetworkRefusals: what cannot be set up ends before anything runs.
//
// check list: runtime 8; cli 12; pod-lifecycle 12
func TestNetworkRefusals(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.refused(t, []string{"stage1: failed to setup network", "nosuchnet"}, append([]string{"run", "--net=nosuchnet", "--uuid-file-save=/run/failed.uuid"}, bb("true")...)...)
	status := f.rkt("status", "--uuid-file=/run/failed.uuid")
	contains(t, "status of the pod that failed", status, "state=exited", "created=", "exited=true")
	lacks(t, "status of the pod that failed", status, "\npid=")
	f.refused(t, []string{"http"}, append([]string{"run", "--net=default", "--port=http:8080"}, bb("true")...)...)
	image := f.image("port", "busybox", "--name", "example.com/port", "--manifest", `{"app": {"exec": ["/bin/true"], "ports": [{"name": "http", "protocol": "tcp", "port": 80}]}}`)
	for _, net := range []string{"host", "none"} {
		f.refused(t, []string{"port"}, "run", "--net="+net, "--port=http:8080", image)
	}
	f.sh("rm -f /run/failed.uuid")
	f.unchanged(before)
}

// TestTransientUnit: rkt in a unit that systemd-run makes.
//
// check list: runtime 7; cli 35
func TestTransientUnit(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.sh(`systemd-run --quiet --unit=rkt-transient --property=Type=notify -- rkt run --net=none ` + busybox + ` --exec=/bin/sh -- -c ` + quoted([]string{forever(0)}))
	equal(t, "ActiveState", f.show("rkt-transient", "ActiveState"), "active")
	f.systemctl("stop", "rkt-transient")
	equal(t, "units left", strings.TrimSpace(f.sh("systemctl list-units --all --plain --no-legend 'rkt-transient*'")), "")
	f.unchanged(before)
}

// TestEnterWaits: a pod that has no process ID yet is waited for, one that ends meanwhile is not.
//
// check list: runtime 3, 13; cli 13; pod-lifecycle 10, 11
func TestEnterWaits(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	uuid := f.background(append([]string{"--net=none"}, bb(forever(0))...)...)
	dir := podsDir + "/run/" + uuid
	equal(t, "the caller's terminal", f.sh("TERM=vt52 rkt enter "+uuid+" /bin/sh -c 'echo $TERM'"), "vt52\n")
	contains(t, "subcgroup", f.sh("cat "+dir+"/subcgroup"), "payload")
	contains(t, "the app's group", f.sh("find /sys/fs/cgroup/$(cat "+dir+"/subcgroup) -name app.service"), "app.service")
	out := f.sh(`cd ` + dir + `; mkdir /run/away; mv pid ppid /run/away 2>/dev/null || true
		timeout 30 rkt enter ` + uuid + ` /bin/echo entered >/run/away/out 2>&1 & e=$!; sleep 0.7; kill -0 $e && echo waits; mv /run/away/*pid .; wait $e; echo $?; cat /run/away/out; rm -r /run/away`)
	equal(t, "entering", out, "waits\n0\nentered\n")
	out = f.sh(`cd ` + dir + `; cp ppid /run/ppid 2>/dev/null || cp pid /run/ppid; p=$(cat /run/ppid); rm -f pid ppid
		timeout 30 rkt enter ` + uuid + ` /bin/echo entered >/run/enter.out 2>&1 & e=$!; sleep 0.5; machinectl terminate rkt-` + uuid + `; rkt status ` + uuid + ` --wait=60s >/dev/null 2>&1
		begin=$(date +%s%N); s=0; wait $e || s=$?; echo $s $(( ($(date +%s%N) - begin) / 1000000000 )); rm -f /run/ppid /run/enter.out`)
	equal(t, "status and seconds of an enter that is too late", out, "254 0\n")
	f.unchanged(before)
}

// TestPodDirectory: where a pod lies, and when.
//
// check list: pod-lifecycle 1, 3, 4, 14; cli 8
func TestPodDirectory(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	where := func(uuid string) string { return strings.TrimSpace(f.sh("cd " + podsDir + "; ls -d */" + uuid)) }
	all := func() string {
		return strings.TrimSpace(f.sh("cd " + podsDir + "; ls -d prepared/* run/* garbage/* exited-garbage/* prepare/* embryo/* 2>/dev/null || true"))
	}
	begin := time.Now()
	prepared := f.rkt(append([]string{"prepare", "--quiet"}, bb("true")...)...)
	equal(t, "a prepared pod", where(prepared), "prepared/"+prepared)
	uuid := f.background(append([]string{"--net=none"}, bb(forever(0))...)...)
	equal(t, "a running pod", where(uuid), "run/"+uuid)
	status := object[m](t, f.rkt("status", "--format=json", uuid))
	for _, key := range []string{"created_at", "started_at"} {
		at, _ := status[key].(float64)
		if d := at - float64(begin.Unix()); d < -2 || d > 20 {
			t.Errorf("%s is %v, %v s after the beginning", key, status[key], d)
		}
	}
	f.rkt("stop", uuid)
	f.rkt("status", uuid, "--wait=60s")
	equal(t, "an ended pod", where(uuid), "run/"+uuid)
	f.refused(t, []string{`"app"`, "name"}, append(append([]string{"prepare"}, bb("true", "---")[:3]...), busybox, "--name=app")...)
	was := all()
	f.rkt("gc", "--mark-only", "--expire-prepared=0", "--grace-period=0")
	if n, m := len(strings.Fields(was)), len(strings.Fields(all())); n != m || n < 2 {
		t.Errorf("gc --mark-only: %d pods, then %d: %s, then %s", n, m, was, all())
	}
	equal(t, "the pod that is marked", where(uuid), "exited-garbage/"+uuid)
	f.rkt("gc", "--expire-prepared=0", "--grace-period=0")
	equal(t, "pods after gc", all(), "")
	f.unchanged(before)
}

// TestCollectWithoutMounts: what others unmounted is no obstacle.
//
// check list: pod-lifecycle 7, 13; cli 34
func TestCollectWithoutMounts(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	for _, cut := range []string{"", "; ip netns del $(ls /run/netns | head -n 1) 2>/dev/null || true"} {
		_, _, code := f.Try(append([]string{"rkt", "run", "--net=default", "--uuid-file-save=/run/nomounts.uuid"}, bb("exit 3")...)...)
		equal(t, "status", code, 3)
		contains(t, "rkt list", f.rkt("list", "--format=json"), "172.16.28.")
		f.sh(`for m in $(findmnt -rno TARGET | grep $(cat /run/nomounts.uuid) | sort -ru); do umount -l $m; done` + cut)
		contains(t, "status", f.rkt("status", "--uuid-file=/run/nomounts.uuid"), "app-app=3")
		f.rkt("gc", "--mark-only")
		stdout, stderr, code := f.Try("rkt", "gc", "--grace-period=0")
		if code != 0 || strings.TrimSpace(stderr) != "" {
			t.Errorf("gc: status %d\n%s%s", code, stdout, stderr)
		}
	}
	f.sh("rm -f /run/nomounts.uuid")
	f.unchanged(before)
}

// TestTrees: what is rendered, and when. Copies (--no-overlay) are made of trees
// as well, so that they are there with both.
//
// check list: pod-lifecycle 16, 17, 23
func TestTrees(t *testing.T) {
	f := open(t)
	root, member := f.image("roottree", "busybox", "--name", "example.com/roottree"), f.image("grouptree", "busybox", "--name", "example.com/grouptree")
	trees := func(dir string) int {
		n, err := strconv.Atoi(strings.TrimSpace(f.sh("ls " + dir + "/cas/tree | grep -cv '^[.]' || true")))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	f.sh("rm -rf /var/tmp/real /var/tmp/linked; mkdir -p /var/tmp/real; ln -s real /var/tmp/linked")
	t.Cleanup(func() { f.sh("rm -rf /var/tmp/real /var/tmp/linked") })
	stdout, stderr, code := f.Try(append([]string{"rkt", "--dir=/var/tmp/linked", "run", "--net=none"}, bb("echo ran")...)...)
	if code != 0 || outputs(stdout + stderr)["app"] != "ran\n" {
		t.Errorf("status %d\n%s%s", code, stdout, stderr)
	}
	equal(t, "trees of stage1 and the app", trees("/var/tmp/real"), 2)
	contains(t, "pods by the link", f.rkt("--dir=/var/tmp/linked", "list"), "app")
	contains(t, "pods by the target", f.rkt("--dir=/var/tmp/real", "list"), "app")
	f.rkt("--dir=/var/tmp/linked", "gc", "--grace-period=0")

	before := trees("/var/lib/rkt")
	f.sh("runuser -u nobody -g rkt -- rkt fetch " + member)
	equal(t, "trees after a member of the group fetched", trees("/var/lib/rkt"), before)
	f.rkt("fetch", root)
	equal(t, "trees after root fetched", trees("/var/lib/rkt"), before+1)
	f.rkt("image", "rm", "example.com/roottree", "example.com/grouptree")
}

// TestDamagedPodDirectory: one that cannot be read hides no other.
//
// check list: pod-lifecycle 22
func TestDamagedPodDirectory(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	good := f.rkt(append([]string{"prepare", "--quiet"}, bb("true")...)...)
	bad := f.rkt(append([]string{"prepare", "--quiet"}, bb("true")...)...)
	f.sh("rm -rf " + podsDir + "/prepared/" + bad + "/appsinfo " + podsDir + "/prepared/" + bad + "/pod")
	stdout, stderr, code := f.Try("rkt", "list", "--full", "--no-legend")
	if code != 0 || !strings.Contains(stdout, good) {
		t.Errorf("rkt list: status %d\n%s%s", code, stdout, stderr)
	}
	f.gc()
	f.unchanged(before)
}

// TestRefusedCommandLines: what is refused, and with which words.
//
// check list: cli 1, 7, 9, 20, 31
func TestRefusedCommandLines(t *testing.T) {
	f := open(t)
	image := f.image("noapp", "busybox", "--name", "example.com/noapp", "--manifest", `{"app": null}`)
	foreign := f.image("foreign", "busybox", "--name", "example.com/foreign", "--manifest", `{"labels": [{"name": "os", "value": "freebsd"}, {"name": "arch", "value": "amd64"}]}`)
	nolabel := f.image("nolabel", "busybox", "--name", "example.com/nolabel", "--manifest", `{"labels": [{"name": "arch", "value": "amd64"}]}`)
	before := f.snapshot()
	if out, all, code := f.runPod("--net=none", image, "--name=app", "--exec=/bin/echo", "--", "ran"); code != 0 || out != "ran\n" {
		t.Errorf("an image without an app: status %d\n%s", code, all)
	}
	f.refused(t, nil, "run", "--net=none", image)
	f.refused(t, []string{`bad os "freebsd"`}, "run", "--net=none", foreign)
	f.refused(t, []string{"missing os label"}, "run", "--net=none", nolabel)
	f.sh(`echo '{}' >/run/manifest.json`)
	conflict := ""
	for _, flag := range []string{"--volume=v,kind=empty", "--port=http:80", "--inherit-env", "--set-env=A=b", "--no-overlay=false", busybox} {
		stdout, stderr, code := f.Try("rkt", "run", "--pod-manifest=/run/manifest.json", flag)
		if strings.HasPrefix(flag, "--no-overlay") {
			continue // says nothing about the pod
		}
		if code != 254 || !strings.Contains(stderr, "pod-manifest") {
			t.Errorf("--pod-manifest with %s: status %d\n%s%s", flag, code, stdout, stderr)
		}
		if conflict == "" {
			conflict = stderr
		}
	}
	for _, command := range []string{"run", "prepare", "run-prepared", "enter", "gc", "rm", "attach"} {
		_, stderr, code := f.Try("runuser", "-u", "nobody", "--", "rkt", command)
		if code != 254 || !strings.Contains(stderr, "cannot run as unprivileged user") {
			t.Errorf("rkt %s as nobody: status %d, %q", command, code, stderr)
		}
	}
	const none = "00000000-0000-4000-8000-000000000000"
	f.sh("echo " + none + " >/run/none.uuid")
	want := fmt.Sprintf("no matches found for %q", none)
	f.refused(t, []string{want}, "rm", none)
	f.refused(t, []string{want}, "rm", "--uuid-file=/run/none.uuid")
	f.refused(t, []string{"UUID cannot be empty"}, "rm", "")
	f.sh("rm -f /run/none.uuid /run/manifest.json")
	f.unchanged(before)
}

// TestSeededVolume: a volume of a converted image begins with what the image
// has there, also where a link leads there.
//
// check list: runtime 21, 22
func TestSeededVolume(t *testing.T) {
	f := open(t)
	dir := t.TempDir()
	if err := linkTree(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/real", 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir+"/real/file", "of the image\n")
	image := f.image("seededlinks", "busybox", "--name", "example.com/seededlinks", "--file", dir+"/links:/links", "--file", dir+"/real:/real", "--manifest",
		`{"annotations": [{"name": "appc.io/docker/repository", "value": "library/x"}], "app": {"exec": ["/bin/sh"], "user": "0", "group": "0", "mountPoints": [{"name": "data", "path": "/links/abs"}]}}`)
	before := f.snapshot()
	out, all, code := f.runPod("--net=none", image, "--name=app", "--exec=/bin/sh", "--", "-c", "cat /links/abs/file; echo new >/real/made && cat /links/abs/made; grep -c ' /real ' /proc/self/mountinfo")
	if code != 0 || out != "of the image\nnew\n1\n" {
		t.Errorf("status %d, %q\n%s", code, out, all)
	}
	f.unchanged(before)
}

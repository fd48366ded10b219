//go:build boot

package boot

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

// badImage is an image that an update must not end with.
type badImage struct {
	name string
	// what is changed of the good one: a filter for the manifest, a script for the files
	filter, script string
	// reason is what the history says
	reason string
	args   []string
}

// svcExec is a filter that makes an image run /svc with these arguments, after it answers as the good one does.
func svcExec(t *testing.T, args ...string) string {
	t.Helper()
	return ".app.exec=" + text(t, append([]string{"/svc", "answer=127.0.0.1:7000"}, args...))
}

// badLanes are the images that are found bad only when they run, by what of the pod file they need.
func badLanes(t *testing.T) map[string][]badImage {
	exec := func(args ...string) string { return ".app.exec=" + text(t, args) }
	svc := func(args ...string) string { return svcExec(t, args...) }
	seccomp := `.app.isolators=[{"name":"os/linux/seccomp-remove-set","value":{"errno":"EPERM","set":["socket","openat","mmap"]}}]`
	return map[string][]badImage{
		"exec": {
			{name: "missing binary", filter: exec("/nosuch"), reason: "exit status"},
			{name: "exec format error", filter: exec("/bad"), script: `head -c 4096 /dev/urandom >bad; chmod 755 bad`, reason: "exit status"},
			{name: "a binary of another architecture", filter: `(.labels[] | select(.name == "arch")).value = "s390x"`, script: `printf '\x00\x16' | dd of=svc bs=1 seek=18 conv=notrunc status=none`, reason: "exit status"},
			{name: "not executable", filter: exec("/bad"), script: `echo x >bad; chmod 644 bad`, reason: "exit status"},
			{name: "missing interpreter", filter: exec("/bad"), script: `echo '#!/nosuch' >bad; chmod 755 bad`, reason: "exit status"},
			{name: "a directory for a program", filter: exec("/bad"), script: `mkdir bad`, reason: "exit status"},
			{name: "unknown user", filter: `.app.user="nosuch"`, reason: "exit status"},
			{name: "unknown group", filter: `.app.group="nosuch"`, reason: "exit status"},
			{name: "missing working directory", filter: `.app.workingDirectory="/nosuch"`, reason: "exit status"},
			{name: "a file for a working directory", filter: `.app.workingDirectory="/svc"`, reason: "exit status"},
			{name: "a file for a mount point", script: `rmdir data; echo x >data`},
			{name: "a link out of the root for a mount point", script: `rmdir data; ln -s /etc data; rm -rf etc; ln -s ../../../etc etc`},
			{name: "system calls that it needs are filtered", filter: seccomp},
			{name: "missing credential", filter: svc("read=$CREDENTIALS_DIRECTORY/other", "notify=0s", "wait=1h"), reason: "exit status 66"},
			{name: "port taken", filter: svc("answer=127.0.0.1:7000", "notify=0s", "wait=1h"), reason: "exit status 70"},
		},
		"crash": {
			{name: "crash at once", filter: exec("/svc", "exit=1"), reason: "exit status 1"},
			{name: "crash after a second", filter: svc("notify=0s", "wait=1s", "exit=1")},
			{name: "crash while starting", filter: svc("wait=500ms", "exit=4"), reason: "exit status 4"},
			{name: "exit 0 at once", filter: exec("/svc", "exit=0")},
			{name: "exit 0 after it was ready", filter: svc("notify=0s", "wait=300ms", "exit=0")},
			{name: "segmentation fault", filter: exec("/bad"), script: `cp svc bad; printf '\0\0\0\0\0\0\0\0' | dd of=bad bs=1 seek=24 conv=notrunc status=none`},
			{name: "out of memory", filter: svc("notify=0s", "wait=200ms", "eat=400", "wait=1h")},
			{name: "killed, as by the kernel for its memory", filter: svc("notify=0s", "wait=200ms", "signal=9")},
			{name: "terminated by itself", filter: svc("notify=0s", "wait=200ms", "signal=15")},
			{name: "stopped by a signal while it starts", filter: svc("signal=19", "wait=100ms", "notify=0s", "wait=1h"), reason: "not ready within 5s", args: []string{"--timeout=5s"}},
			{name: "never ready", filter: svc("wait=1h"), reason: "not ready within 5s", args: []string{"--timeout=5s"}},
		},
		"health": {
			{name: "unhealthy", filter: svc("touch=/tmp/bad", "notify=0s", "wait=1h"), reason: `app "app" is unhealthy: exit status 1: /tmp/bad is there`},
			{name: "unhealthy after a second", filter: svc("notify=0s", "wait=1s", "touch=/tmp/bad", "wait=1h"), reason: `app "app" is unhealthy: exit status 1: /tmp/bad is there`},
			{name: "its health check is missing", script: `rm check`, reason: `app "app" is unhealthy`},
			{name: "its health check hangs", script: `cp svc check; rm check; printf '#!/svc wait=1h\n' >check; chmod 755 check`, reason: `app "app" is unhealthy`},
		},
		"ready": {
			{name: "ready only when healthy, and never healthy", filter: svc("touch=/tmp/bad", "notify=0s", "wait=1h"), reason: "not ready within 5s", args: []string{"--timeout=5s"}},
			{name: "healthy once, and not any more", filter: svc("notify=0s", "wait=1s", "touch=/tmp/bad", "wait=1h"), reason: `app "app" is unhealthy`},
		},
		"late": {
			{name: "unhealthy after 20 s", filter: svc("notify=0s", "wait=20s", "touch=/tmp/bad", "wait=1h"), reason: `app "app" is unhealthy`, args: []string{"--settle=26s"}},
		},
	}
}

// badPod is a pod file with all that the images of a lane may fail at.
func badPod(lane, image, restart string) m {
	p := updPod(image, restart)
	app := p["apps"].([]m)[0]
	app["systemd"].(m)["service"].(m)["LimitDATA"] = "256M"
	app["mounts"] = []m{{"volume": "data", "path": "/data"}}
	p["volumes"] = []m{{"name": "data", "kind": "empty"}}
	if lane == "health" || lane == "ready" || lane == "late" {
		app["health"] = m{"exec": []string{"/check", "absent=/tmp/bad"}, "interval": "300ms", "timeout": "2s", "retries": 2}
		p["rkt"].(m)["update"].(m)["settle"] = "8s"
	}
	if lane == "ready" {
		p["rkt"].(m)["ready"] = "healthy"
	}
	return p
}

// TestBadUpdates: whatever is wrong with a new image, the pod runs the one before afterwards, and nothing else, and the
// history tells.
func TestBadUpdates(t *testing.T) {
	f := updates(t)
	before := f.snapshot()
	f.upd(`variant good . 'echo 1 >v; mkdir -p data; cp svc check'; variant better . 'echo 2 >v; mkdir -p data; cp svc check'`)
	lanes := badLanes(t)
	var wg sync.WaitGroup
	for _, restart := range []string{"no", "always"} {
		for _, after := range [][]string{{"exec"}, {"crash"}, {"late", "ready", "health"}} {
			// Beside each other, however many tests may run in parallel: they wait.
			wg.Go(func() {
				for _, lane := range after {
					t.Run("restart "+restart+", "+lane, func(t *testing.T) {
						f := &fixture{Host: f.Host, t: t, since: f.since}
						f.badUpdates(lane, restart, share(f.suite(), restart, lanes[lane]))
					})
				}
			})
		}
	}
	wg.Wait()
	contains(t, "the journal", f.journal("MESSAGE_ID=5d0e0c4a9b1f4f5d8f5e2b7d6c1a9e42", "RKT_POD_NAME=updcrashno", "--since", f.since), `pod "updcrashno" is back at generation 1`)
	contains(t, "the journal", f.journal("MESSAGE_ID=c2b2a7d1f3f54b0f9a3f1a5a0d3e7b61", "RKT_POD_NAME=updcrashalways", "--since", f.since), `pod "updcrashalways" runs generation`)
	f.unchanged(before)
}

// share is what one suite tries: each image without Restart= on one, with it on
// the other, unless RKT_TEST_FULL asks for all.
func share(suite, restart string, all []badImage) []badImage {
	if os.Getenv("RKT_TEST_FULL") != "" || len(all) == 1 {
		return all
	}
	var out []badImage
	for i, c := range all {
		if (i%2 == 0) == ((suite == "trixie") == (restart == "always")) {
			out = append(out, c)
		}
	}
	return out
}

// badUpdates tries images one after the other on one pod.
func (f *fixture) badUpdates(lane, restart string, cases []badImage) {
	name := "upd" + lane + restart
	dir := updDir + "/" + name
	f.sh("mkdir " + dir + " && cp " + updDir + "/good.aci " + updDir + "/better.aci " + dir)
	f.updIn(dir, "live good")
	f.declare(name, badPod(lane, dir+"/live.aci", restart))
	f.start(name)
	was := f.updState(name)
	for _, c := range cases {
		f.t.Run(c.name, func(t *testing.T) {
			f := &fixture{Host: f.Host, t: t, since: f.since}
			filter := c.filter
			if filter == "" {
				filter = "."
			}
			f.updIn(dir, fmt.Sprintf("variant bad %s %s; live bad", quoted([]string{filter}), quoted([]string{"echo bad >v; mkdir -p data; cp svc check; " + c.script})))
			out, errs, code := f.Try(append([]string{"rkt", "pod", "update", name, "--format=json"}, c.args...)...)
			is := f.updState(name)
			reported := object[[]struct {
				Result string
				Apps   []struct{ From, To string }
			}](t, out)
			problem := ""
			for what, ok := range map[string]bool{
				"the exit status":                      code == 254,
				"the result":                           len(reported) == 1 && reported[0].Result == "rolled-back" && len(reported[0].Apps) == 1,
				"one pod runs":                         is.Active == "active" && is.Running == 1 && is.Processes == 1,
				"the image of before, started again":   is.Image != "" && is.Image == was.Image && is.Invocation != was.Invocation,
				"it answers":                           is.Answer == "1",
				"its generation":                       is.Generation == was.Generation && is.State == "good",
				"two events: the trial, and its end":   is.Events == was.Events+2 && is.Last == fmt.Sprintf("rolled-back %d %s", was.Generation, is.Trial.Reason),
				"the generation that was tried is bad": is.Trial.Number > max(was.Trial.Number, was.Generation) && is.Trial.State == "bad",
				"the image that was tried":             len(reported) == 1 && len(reported[0].Apps) == 1 && strings.HasPrefix(reported[0].Apps[0].From, was.Image) && reported[0].Apps[0].To == is.Trial.Image,
				"the reason":                           is.Trial.Reason != "" && strings.Contains(is.Trial.Reason, c.reason),
			} {
				if !ok {
					problem += what + "; "
				}
			}
			if problem != "" {
				t.Errorf("status %d, not as it has to be: %s\nbefore %+v\nafter  %+v\n%s%s", code, problem, was, is, out, errs)
			}
			was = is
		})
	}
	// A start does not take what proved bad either, and a better one is taken.
	f.systemctl("restart", "rkt@"+name)
	was = f.updState(name)
	f.updIn(dir, "live better")
	f.Run(f.t, "rkt", "pod", "update", name, "--settle=1s")
	is := f.updState(name)
	if was.Generation != 1 || was.Answer != "1" || is.Generation <= was.Generation || is.Image == was.Image || is.State != "good" || is.Active != "active" || is.Answer != "2" ||
		!strings.HasPrefix(is.Last, "updated ") {
		f.t.Errorf("a good update after bad ones:\nbefore %+v\nafter  %+v", was, is)
	}
	f.forget(name)
}

// webServer copies the server of ../images/httpd into the host as /var/tmp/NAME.
func (f *fixture) webServer(name string) string {
	f.t.Helper()
	bin := f.t.TempDir() + "/httpd"
	cmd := exec.CommandContext(f.t.Context(), "go", "build", "-o", bin, "../images/httpd")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("building the test server: %v\n%s", err, out)
	}
	f.Copy(f.t, bin, "/var/tmp/"+name)
	f.t.Cleanup(func() { f.trySh("rm -f /var/tmp/" + name) })
	return "/var/tmp/" + name
}

// TestUpdatesThatNeverBegin: what is found wrong before the flip costs the pod nothing, not even a restart.
func TestUpdatesThatNeverBegin(t *testing.T) {
	f := updates(t)
	before := f.snapshot()
	server := f.webServer("upd-httpd")
	t.Cleanup(func() {
		f.trySh("systemctl stop upd-httpd upd-httpsd; umount /var/lib/rkt/cas/tmp /var/lib/rkt/cas/tree")
	})
	f.upd(`
		systemd-run -q --collect --unit=upd-httpd ` + server + ` 127.0.0.1:18199 /var/tmp/upd
		systemd-run -q --collect --unit=upd-httpsd ` + server + ` 127.0.0.1:18198 /var/tmp/upd tls
		echo 1 >v && tar -C base/rootfs -cf root.tar svc && tar -rf root.tar v
		echo 2 >v && head -c 300000 /dev/urandom >ballast && tar -cf top.tar v ballast
		head -c 300000 /dev/urandom >ballast && tar -cf other.tar v ballast
		layout oci.good root.tar; layout oci.new root.tar top.tar; cp -a oci.good oci; push oci
		cp good.aci signed.aci; cp ` + imageDir + `/upd.aci signed.aci; cp ` + imageDir + `/upd.aci.asc signed.aci.asc`)
	names := []string{"updfile", "updurl", "updoci", "updreg", "updsig"}
	var all []string
	states := map[string]updState{}
	for _, restart := range []string{"no", "always"} {
		f.declare("updfile"+restart, updPod(updDir+"/live.aci", restart))
		f.declare("updurl"+restart, updPod("http://127.0.0.1:18199/live.aci?"+restart, restart)) // a source for each
		f.declare("updoci"+restart, updPod("oci:"+updDir+"/oci:1", restart))
		f.declare("updreg"+restart, updPod("docker://127.0.0.1:18199/upd:1", restart))
		signed := updPod(updDir+"/signed.aci", restart)
		signed["rkt"].(m)["insecureOptions"] = []string{}
		f.declare("updsig"+restart, signed)
		for _, n := range names {
			all = append(all, n+restart)
		}
	}
	f.sh("systemctl start rkt@" + strings.Join(all, " rkt@"))
	for _, n := range all {
		states[n] = f.updState(n)
		answer := "1"
		if strings.HasPrefix(n, "updsig") {
			answer = "open /v: no such file or directory" // the image as it was signed
		}
		equal(t, "the answer of "+n, states[n].Answer, answer)
	}
	const top = "$(sha256sum <top.tar | cut -d' ' -f1)"
	const other = "$(sha256sum <other.tar | cut -d' ' -f1)"
	undo := ""
	full := os.Getenv("RKT_TEST_FULL") != ""
	for i, c := range []struct{ name, pod, script, undo, want string }{
		{"wrong architecture", "updoci", `ARCH=s390x layout oci root.tar other.tar`, "rm -rf oci; cp -a oci.good oci", "s390x"},
		{"wrong operating system", "updfile", `variant bad '(.labels[] | select(.name == "os")).value = "freebsd"'; live bad`, "live good", "freebsd"},
		{"bad manifest", "updfile", `variant bad '.acVersion = 7'; live bad`, "live good", ""},
		{"not even JSON for a manifest", "updfile", `variant bad .; tar -C work -xf bad.aci; echo '{"acKind"' >work/manifest; tar -C work -cf bad.aci manifest rootfs; live bad`, "live good", ""},
		{"no command", "updfile", `variant bad 'del(.app)'; live bad`, "live good", ""},
		{"no image at all", "updfile", `head -c 100000 /dev/urandom >bad.aci; live bad`, "live good", ""},
		{"an empty file", "updfile", `: >bad.aci; live bad`, "live good", ""},
		{"truncated archive", "updfile", `head -c 100000 better.aci >bad.aci; live bad`, "live good", ""},
		{"the file is gone", "updfile", `rm live.aci`, "live good", "live.aci"},
		{"a link out of the root", "updfile", `variant bad . 'ln -s /etc/passwd x; ln x ../y'; tar -C work --transform 's,^y$,rootfs/../../y,' -P -rf bad.aci y; live bad`, "live good", ""},
		{"disk full", "updurl", `live better; mount -t tmpfs -o size=512k none /var/lib/rkt/cas/tmp`, "umount /var/lib/rkt/cas/tmp; live good", "no space left on device"},
		{"no inodes left", "updurl", `live better; mount -t tmpfs -o nr_inodes=1 none /var/lib/rkt/cas/tmp`, "umount /var/lib/rkt/cas/tmp; live good", "no space left on device"},
		{"truncated download", "updurl", `head -c 100000 better.aci >bad.aci; live bad`, "live good", ""},
		{"the server breaks off in the middle", "updurl", `live better; echo 200000 >live.aci.cut`, "rm live.aci.cut; live good", "live.aci"},
		{"the server refuses", "updurl", `live better; echo 403 >live.aci.status`, "rm live.aci.status; live good", "403"},
		{"the server wants a password", "updurl", `live better; echo 401 >live.aci.status`, "rm live.aci.status; live good", "401"},
		{"the server does not have it any more", "updurl", `rm live.aci`, "live good", "404"},
		{"the registry breaks off in the middle", "updreg", `push oci.new; echo 100000 >v2/upd/blobs/sha256:` + top + `.cut`, "rm v2/upd/blobs/*.cut; push oci.good", ""},
		{"the registry has another layer", "updreg", `push oci.new; cp v2/upd/blobs/sha256:$(sha256sum <root.tar | cut -d' ' -f1) v2/upd/blobs/sha256:` + top, "push oci.good", ""},
		{"the registry lacks the manifest", "updreg", `rm v2/upd/manifests/1`, "push oci.good", "404"},
		{"the registry lacks a layer", "updreg", `push oci.new; rm v2/upd/blobs/sha256:` + top, "push oci.good", "404"},
		{"the registry is gone", "updreg", `systemctl stop upd-httpd`, "", "refused"},
		{"the server is gone", "updurl", ``, "", "refused"},
		{"digest mismatch", "updoci", `layout oci.new root.tar other.tar; printf x | dd of=oci.new/blobs/sha256/` + other + ` conv=notrunc bs=1 seek=600 2>/dev/null; rm -rf oci; cp -a oci.new oci`, "rm -rf oci; cp -a oci.good oci", "digest"},
		{"truncated layer", "updoci", `layout oci.new root.tar other.tar; truncate -s 700 oci.new/blobs/sha256/` + other + `; rm -rf oci; cp -a oci.new oci`, "rm -rf oci; cp -a oci.good oci", ""},
		{"missing layer", "updoci", `layout oci.new root.tar other.tar; rm oci.new/blobs/sha256/` + other + `; rm -rf oci; cp -a oci.new oci`, "rm -rf oci; cp -a oci.good oci", ""},
		{"the manifest lies about a size", "updoci", `SIZE=7 layout oci root.tar other.tar`, "rm -rf oci; cp -a oci.good oci", ""},
		{"the configuration lies about a layer", "updoci", `DIFF=sha256:` + strings.Repeat("0", 64) + ` layout oci root.tar other.tar`, "rm -rf oci; cp -a oci.good oci", ""},
		{"unsigned", "updsig", `cp better.aci signed.aci; rm signed.aci.asc`, "", "signature"},
		{"signature of another image", "updsig", `cp better.aci signed.aci; cp ` + imageDir + `/upd.aci.asc signed.aci.asc`, "", "signature"},
		{"garbage for a signature", "updsig", `cp better.aci signed.aci; head -c 500 /dev/urandom >signed.aci.asc`, "", "signature"},
	} {
		if !full && (i%2 == 0) == (f.suite() == "trixie") && !strings.HasSuffix(c.name, " is gone") {
			continue // the other suite tries it: of systemd's version nothing here depends
		}
		t.Run(c.name, func(t *testing.T) {
			f := &fixture{Host: f.Host, t: t, since: f.since}
			f.upd(undo + "\n" + c.script)
			undo = c.undo
			pods := []string{c.pod + "no", c.pod + "always"}
			update := []string{"rkt", "pod", "update", pods[0], pods[1]}
			if c.pod == "updurl" { // at once: a server is asked again for a while
				update = []string{"bash", "-uc", `rkt pod update $1 & rkt pod update $2; s=$?; wait $! || exit $(($? == s ? s : 1))`, "-", pods[0], pods[1]}
			}
			out, errs, code := f.Try(update...)
			for _, pod := range pods {
				is := f.updState(pod)
				if code != 254 || is != states[pod] || is.Active != "active" || is.Running != 1 || !strings.Contains(errs, `updating pod "`+pod+`"`) || !strings.Contains(errs, c.want) {
					t.Errorf("pod %s: status %d, want %q\nbefore %+v\nafter  %+v\n%s%s", pod, code, c.want, states[pod], is, out, errs)
				}
			}
		})
	}
	// All of them start again, though the server is gone. (The signed file is another one now, which a start looks at.)
	all = slices.DeleteFunc(all, func(n string) bool { return strings.HasPrefix(n, "updsig") })
	f.forget("updsigno", "updsigalways")
	f.sh("systemctl restart rkt@" + strings.Join(all, " rkt@"))
	for _, n := range all {
		if is := f.updState(n); is.Image != states[n].Image || is.Answer != states[n].Answer || is.Generation != 1 {
			t.Errorf("pod %s after a restart: %+v", n, is)
		}
	}
	f.forget(all...)
	f.sh("rm -rf " + updDir + "; find /var/lib/rkt/cas/tmp -mindepth 1 -delete") // what broke off would be resumed
	f.unchanged(before)
}

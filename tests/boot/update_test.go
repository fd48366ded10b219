//go:build boot

package boot

import (
	"fmt"
	"strings"
	"testing"
)

const updDir = "/var/tmp/upd"

// updScript has what the cases of updates need: variant NAME MANIFEST-FILTER [SCRIPT] makes an unsigned image of the
// base with another manifest and, by a script that runs in its root, other files.
const updScript = `
set -eu
W=${W:-/var/tmp/upd} # each pod that is tested beside others has its own
variant() {
  rm -rf $W/work && cp -a /var/tmp/upd/base $W/work
  cd $W/work
  jq -c "$2" /var/tmp/upd/base/manifest >manifest
  (cd rootfs && eval "${3:-:}")
  tar -cf ../new.aci manifest rootfs && cd .. && mv new.aci "$1.aci"
}
live() { cp "$W/$1.aci" $W/new && mv $W/new $W/live.aci; }
blob() { # blob LAYOUT FILE: its digest
  local d
  d=$(sha256sum <"$2") && cp "$2" "$1/blobs/sha256/${d%% *}" && echo "sha256:${d%% *}"
}
layout() { # layout DIR LAYER.tar...: an OCI layout of them
  local o=$1 diff='' layers='' l d
  shift
  rm -rf $o && mkdir -p $o/blobs/sha256
  echo '{"imageLayoutVersion":"1.0.0"}' >$o/oci-layout
  for l; do
    d=$(blob $o $l)
    diff+=",\"$d\"" layers+=",{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"$d\",\"size\":$(stat -c %s $l)}"
  done
  echo "{\"architecture\":\"${ARCH:-$(dpkg --print-architecture)}\",\"os\":\"linux\",\"config\":{\"Entrypoint\":[\"/svc\"],\"Cmd\":[\"notify=0s\",\"wait=1h\"]},
    \"rootfs\":{\"type\":\"layers\",\"diff_ids\":[${diff#,}]}}" >c
  echo "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",
    \"digest\":\"$(blob $o c)\",\"size\":$(stat -c %s c)},\"layers\":[${layers#,}]}" >m
  echo "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"$(blob $o m)\",\"size\":$(stat -c %s m),
    \"annotations\":{\"org.opencontainers.image.ref.name\":\"1\"}}]}" >$o/index.json
}
`

// updState is all that a case asserts of a pod, in one look.
type updState struct {
	Active, Invocation, Image string
	Generation                int
	State, Last               string
	Events                    int
}

func (f *fixture) updState(name string) updState {
	f.t.Helper()
	return object[updState](f.t, f.Run(f.t, "bash", "-uc", `
		unit=rkt@$1.service
		id=$(systemctl show -P InvocationID $unit)
		uuid=${id:0:8}-${id:8:4}-${id:12:4}-${id:16:4}-${id:20}
		image=$(jq -r '.apps[0].image.id' /var/lib/rkt/pods/run/$uuid/pod 2>/dev/null)
		rkt pod history "$1" --format=json | jq -c --arg a "$(systemctl is-active $unit)" --arg i "$id" --arg m "$image" '{Active: $a, Invocation: $i, Image: $m,
			Generation: .generation, State: .state, Events: (.events | length), Last: (.events[-1] | .event + " " + (.generation | tostring) + " " + (.reason // ""))}'`, "-", name))
}

// updates makes the base of all variants, and the script.
func updates(t *testing.T) *fixture {
	t.Helper()
	f := open(t)
	image := f.svc("upd", appOf("/svc", "notify=0s", "wait=1h"))
	f.sh("rm -rf " + updDir + " && mkdir -p " + updDir + "/base && tar -C " + updDir + "/base -xf " + image)
	f.Write(t, updDir+"/sh", 0o755, []byte(updScript))
	t.Cleanup(func() {
		f.trySh("rm -rf " + updDir)
	})
	f.upd(`variant good . 'echo 1 >v'; variant better . 'echo 2 >v'; live good`)
	return f
}

func (f *fixture) upd(script string) string { return f.updIn(updDir, script) }

func (f *fixture) updIn(dir, script string) string {
	f.t.Helper()
	return f.sh("W=" + dir + "; . " + updDir + "/sh; cd $W; " + script)
}

func updPod(image, restart string) m {
	return service(m{"apps": []m{{"name": "app", "image": image, "systemd": m{"service": m{"Type": "notify"}}}},
		"rkt": m{"net": "none", "insecureOptions": []string{"image", "http"}, "update": m{"timeout": "20s", "settle": "1500ms"}}}, m{"Restart": restart, "RestartSec": "100ms"})
}

// TestBadUpdates: whatever is wrong with a new image, the pod runs the one before afterwards, and the history tells.
func TestBadUpdates(t *testing.T) {
	f := updates(t)
	before := f.snapshot()
	exec := func(args ...string) string { return ".app.exec=" + text(t, args) }
	type bad struct {
		name, filter, script, reason string
		args                         []string
	}
	cases := []bad{
		{"missing binary", exec("/nosuch"), "", "exit status", nil},
		{"exec format error", exec("/bad"), `head -c 4096 /dev/urandom >bad; chmod 755 bad`, "exit status", nil},
		{"not executable", exec("/bad"), `echo x >bad; chmod 644 bad`, "exit status", nil},
		{"crash at once", exec("/svc", "exit=1"), "", "exit status 1", nil},
		{"crash after a second", exec("/svc", "notify=0s", "wait=1s", "exit=3"), "", "", nil},
		{"crash while starting", exec("/svc", "wait=500ms", "exit=4"), "", "exit status 4", nil},
		{"exit 0 at once", exec("/svc", "exit=0"), "", "", nil},
		{"exit 0 after it was ready", exec("/svc", "notify=0s", "wait=300ms", "exit=0"), "", "", nil},
		{"never ready", exec("/svc", "wait=1h"), "", "not ready within 2s", []string{"--timeout=2s"}},
		{"unknown user", `.app.user="nosuch"`, "", "", nil},
		{"missing directory", `.app.workingDirectory="/nosuch"`, "", "", nil},
		{"port taken", exec("/svc", "listen=nosuch0:1"), "", "exit status 70", nil},
	}
	t.Run("updates", func(t *testing.T) {
		for _, restart := range []string{"no", "always"} {
			t.Run("restart "+restart, func(t *testing.T) {
				t.Parallel()
				f := &fixture{Host: f.Host, t: t, since: f.since}
				name := "upd" + restart
				dir := updDir + "/" + restart
				f.sh("mkdir " + dir + " && cp " + updDir + "/good.aci " + updDir + "/better.aci " + dir)
				f.updIn(dir, "live good")
				f.declare(name, updPod(dir+"/live.aci", restart))
				f.start(name)
				was := f.updState(name)
				for _, c := range cases {
					f.updIn(dir, fmt.Sprintf("variant bad %s %s; live bad", quoted([]string{c.filter}), quoted([]string{c.script})))
					out, errs, code := f.Try(append([]string{"rkt", "pod", "update", name}, c.args...)...)
					is := f.updState(name)
					if code != 254 || is.Active != "active" || is.Image != was.Image || is.Image == "" || is.Generation != was.Generation || is.State != "good" ||
						is.Invocation == was.Invocation || is.Events != was.Events+2 || !strings.HasPrefix(is.Last, fmt.Sprintf("rolled-back %d ", was.Generation)) ||
						!strings.Contains(is.Last, c.reason) {
						t.Errorf("%s: status %d\nbefore %+v\nafter  %+v\n%s%s", c.name, code, was, is, out, errs)
					}
					was = is
				}
				// A start does not take what proved bad either, and a better one is taken.
				f.systemctl("restart", "rkt@"+name)
				was = f.updState(name)
				f.updIn(dir, "live better")
				f.Run(t, "rkt", "pod", "update", name)
				is := f.updState(name)
				if was.Generation != 1 || is.Generation <= was.Generation || is.Image == was.Image || is.State != "good" || is.Active != "active" || !strings.HasPrefix(is.Last, "updated ") {
					t.Errorf("a good update after bad ones:\nbefore %+v\nafter  %+v", was, is)
				}
				f.forget(name)
			})
		}
	})
	t.Run("unhealthy", func(t *testing.T) {
		dir := updDir + "/health"
		f.sh("mkdir " + dir)
		f.updIn(dir, "variant good . 'cp svc check'; variant bad . 'echo 3 >v'; live good")
		p := updPod(dir+"/live.aci", "always")
		p["apps"].([]m)[0]["health"] = m{"exec": []string{"/check", "exit=0"}, "interval": "300ms", "retries": 2}
		f.declare("updhealth", p)
		f.start("updhealth")
		was := f.updState("updhealth")
		f.updIn(dir, "live bad")
		out, errs, code := f.Try("rkt", "pod", "update", "updhealth")
		is := f.updState("updhealth")
		if code != 254 || is.Active != "active" || is.Image != was.Image || is.State != "good" || !strings.Contains(is.Last, `app "app" is unhealthy`) {
			t.Errorf("status %d\nbefore %+v\nafter  %+v\n%s%s", code, was, is, out, errs)
		}
		f.forget("updhealth")
	})
	contains(t, "the journal", f.journal("MESSAGE_ID=5d0e0c4a9b1f4f5d8f5e2b7d6c1a9e42", "RKT_POD_NAME=updno", "--since", f.since), `pod "updno" is back at generation 1`)
	contains(t, "the journal", f.journal("MESSAGE_ID=c2b2a7d1f3f54b0f9a3f1a5a0d3e7b61", "RKT_POD_NAME=updalways", "--since", f.since), `pod "updalways" runs generation`)
	f.unchanged(before)
}

// TestUpdatesThatNeverBegin: what is found wrong before the flip costs the pod nothing, not even a restart.
func TestUpdatesThatNeverBegin(t *testing.T) {
	f := updates(t)
	before := f.snapshot()
	t.Cleanup(func() { f.trySh("systemctl stop upd-httpd; umount /var/lib/rkt/cas/tmp") })
	f.upd(`
		systemd-run -q --collect --unit=upd-httpd busybox httpd -f -p 127.0.0.1:18199 -h /var/tmp/upd
		echo 2 >v && tar -cf top.tar v && tar -C base/rootfs -cf root.tar svc
		layout oci.good root.tar; layout oci.new root.tar top.tar; cp -a oci.good oci
		cp ` + imageDir + `/upd.aci signed.aci; cp ` + imageDir + `/upd.aci.asc signed.aci.asc`)
	f.declare("updfile", updPod(updDir+"/live.aci", "no"))
	f.declare("updurl", updPod("http://127.0.0.1:18199/live.aci", "no"))
	f.declare("updoci", updPod("oci:"+updDir+"/oci:1", "no"))
	signed := updPod(updDir+"/signed.aci", "no")
	signed["rkt"].(m)["insecureOptions"] = []string{}
	f.declare("updsig", signed)
	f.systemctl("start", "rkt@updfile", "rkt@updurl", "rkt@updoci", "rkt@updsig")
	const newest = "oci.new/blobs/sha256/$(sha256sum <top.tar | cut -d' ' -f1)"
	states := map[string]updState{}
	for _, pod := range []string{"updfile", "updurl", "updoci", "updsig"} {
		states[pod] = f.updState(pod)
	}
	undo := ""
	for _, c := range []struct{ name, pod, script, undo, want string }{
		{"wrong architecture", "updoci", `ARCH=s390x layout oci root.tar top.tar`, "rm -rf oci; cp -a oci.good oci", "s390x"},
		{"bad manifest", "updfile", `variant bad '.acVersion = 7'; live bad`, "live good", ""},
		{"no command", "updfile", `variant bad 'del(.app)'; live bad`, "live good", ""},
		{"no image at all", "updfile", `head -c 100000 /dev/urandom >bad.aci; live bad`, "live good", ""},
		{"an empty file", "updfile", `: >bad.aci; live bad`, "live good", ""},
		{"truncated archive", "updfile", `head -c 100000 better.aci >bad.aci; live bad`, "live good", ""},
		{"the file is gone", "updfile", `rm live.aci`, "live good", "live.aci"},
		{"a link out of the root", "updfile", `variant bad . 'ln -s /etc/passwd x; ln x ../y'; tar -C work --transform 's,^y$,rootfs/../../y,' -P -rf bad.aci y; live bad`, "live good", ""},
		{"disk full", "updurl", `live better; mount -t tmpfs -o size=512k none /var/lib/rkt/cas/tmp`, "umount /var/lib/rkt/cas/tmp; live good", "no space left on device"},
		{"truncated download", "updurl", `head -c 100000 better.aci >bad.aci; live bad`, "live good", ""},
		{"the server does not have it any more", "updurl", `rm live.aci`, "live good", "404"},
		{"the server is gone", "updurl", `systemctl stop upd-httpd`, "", "refused"},
		{"digest mismatch", "updoci", `layout oci.new root.tar top.tar; printf x | dd of=` + newest + ` conv=notrunc bs=1 seek=600 2>/dev/null; rm -rf oci; cp -a oci.new oci`, "rm -rf oci; cp -a oci.good oci", "digest"},
		{"truncated layer", "updoci", `layout oci.new root.tar top.tar; truncate -s 700 ` + newest + `; rm -rf oci; cp -a oci.new oci`, "rm -rf oci; cp -a oci.good oci", ""},
		{"missing layer", "updoci", `layout oci.new root.tar top.tar; rm ` + newest + `; rm -rf oci; cp -a oci.new oci`, "rm -rf oci; cp -a oci.good oci", ""},
		{"unsigned", "updsig", `cp better.aci signed.aci; rm signed.aci.asc`, "", "signature"},
		{"signature of another image", "updsig", `cp ` + imageDir + `/upd.aci.asc signed.aci.asc`, "", "signature"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fixture{Host: f.Host, t: t, since: f.since}
			was := states[c.pod]
			f.upd(undo + "\n" + c.script)
			undo = c.undo
			out, errs, code := f.Try("rkt", "pod", "update", c.pod)
			is := f.updState(c.pod)
			if code != 254 || is != was || is.Active != "active" || !strings.Contains(errs, c.want) {
				t.Errorf("status %d, want %q\nbefore %+v\nafter  %+v\n%s%s", code, c.want, was, is, out, errs)
			}
		})
	}
	// All of them start again, though the server and the signature are gone.
	for _, pod := range []string{"updfile", "updurl", "updoci"} {
		f.stop(pod)
		f.start(pod)
	}
	f.forget("updfile", "updurl", "updoci", "updsig")
	f.sh("rm -rf " + updDir + " /var/lib/rkt/cas/tmp/layer-*") // what a broken layer left would be resumed
	f.unchanged(before)
}

// TestUpdateAndRollback: policies, --check, what keeps images, a pod that does not run, rollback and history.
func TestUpdateAndRollback(t *testing.T) {
	f := updates(t)
	before := f.snapshot()
	p := updPod(updDir+"/live.aci", "no")
	p["rkt"].(m)["update"] = m{"policy": "registry", "timeout": "20s", "settle": "500ms", "keep": 2}
	f.declare("upd", p)
	pinned := updPod(updDir+"/live.aci", "no")
	pinned["rkt"].(m)["update"] = "never"
	f.declare("updpin", pinned)
	f.systemctl("start", "rkt@upd", "rkt@updpin")
	first := f.updState("upd")
	check := func(want int, args ...string) string {
		t.Helper()
		out, errs, code := f.Try(append([]string{"rkt", "pod", "update"}, args...)...)
		if code != want {
			t.Errorf("rkt pod update %v: status %d, want %d\n%s%s", args, code, want, out, errs)
		}
		return out
	}
	contains(t, "--check, nothing new", check(0, "--all", "--check"), "up-to-date")
	f.upd("live better")
	contains(t, "--check", check(2, "upd", "--check"), "available", "app")
	contains(t, "--check of a pinned pod", check(0, "updpin", "--check"), "up-to-date")
	equal(t, "after --check", f.updState("upd"), first)
	f.systemctl("start", "rkt-update.service")
	second := f.updState("upd")
	if second.Generation != 2 || second.Image == first.Image || second.Active != "active" || second.Last != "updated 2 " {
		t.Errorf("after rkt-update.service: %+v", second)
	}
	equal(t, "the pinned pod's image", f.updState("updpin").Image, first.Image)
	lacks(t, "the timer, unasked", f.sh("systemctl is-enabled rkt-update.timer || true"), "enabled")

	_, errs, code := f.Try("rkt", "image", "rm", first.Image)
	if code != 254 {
		t.Error("the image of a kept generation was removed")
	}
	contains(t, "rkt image rm", errs, "generation 1 of declared pod upd", "--force")
	f.sh("rkt image gc --grace-period=0s")
	contains(t, "rkt pod rollback", check2(f, 0, "rkt", "pod", "rollback", "upd"), "updated")
	back := f.updState("upd")
	if back.Generation != 1 || back.Image != first.Image || back.Active != "active" || !strings.HasPrefix(back.Last, "rolled-back 1 ") {
		t.Errorf("after the rollback: %+v", back)
	}
	contains(t, "the timer after a rollback", check(0, "--all", "--auto"), "skipped")
	f.systemctl("restart", "rkt@upd")
	equal(t, "the image after a restart", f.updState("upd").Image, first.Image)
	// A pod that does not run is not started.
	f.stop("upd")
	contains(t, "an update of a pod that does not run", check(0, "upd"), "recorded")
	if s := f.updState("upd"); s.Active != "inactive" {
		t.Errorf("%+v", s)
	}
	f.start("upd")
	equal(t, "the image afterwards", f.updState("upd").Image, second.Image)
	// keep
	for i := range 3 {
		f.upd(fmt.Sprintf("variant v%d . 'echo v%[1]d >v'; live v%[1]d", i))
		check(0, "upd")
	}
	h := object[struct{ Generations []struct{ State string } }](t, f.Run(t, "rkt", "pod", "history", "upd", "--format=json"))
	good := 0
	for _, g := range h.Generations {
		if g.State == "good" {
			good++
		}
	}
	equal(t, "good generations that are kept", good, 2)
	contains(t, "rkt pod history", f.Run(t, "rkt", "pod", "history", "upd"), "*", "updated", "rolled-back", "recorded", "by hand")
	_, errs, code = f.Try("rkt", "pod", "rollback", "upd", "1")
	if code != 254 || !strings.Contains(errs, "no generation 1 (any more)") {
		t.Errorf("a generation that is gone: %d %s", code, errs)
	}
	f.forget("upd", "updpin")
	f.unchanged(before)
}

func check2(f *fixture, want int, argv ...string) string {
	f.t.Helper()
	out, errs, code := f.Try(argv...)
	if code != want {
		f.t.Errorf("%v: status %d, want %d\n%s%s", argv, code, want, out, errs)
	}
	return out
}

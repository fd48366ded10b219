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
    diff+=",\"${DIFF:-$d}\"" layers+=",{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"$d\",\"size\":${SIZE:-$(stat -c %s $l)}}"
  done
  echo "{\"architecture\":\"${ARCH:-$(dpkg --print-architecture)}\",\"os\":\"linux\",\"config\":{\"Entrypoint\":[\"/svc\"],\"Cmd\":[\"answer=127.0.0.1:7000\",\"notify=0s\",\"wait=1h\"]},
    \"rootfs\":{\"type\":\"layers\",\"diff_ids\":[${diff#,}]}}" >c
  echo "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",
    \"digest\":\"$(blob $o c)\",\"size\":$(stat -c %s c)},\"layers\":[${layers#,}]}" >m
  echo "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"$(blob $o m)\",\"size\":$(stat -c %s m),
    \"annotations\":{\"org.opencontainers.image.ref.name\":\"1\"}}]}" >$o/index.json
}
push() { # push LAYOUT: into the registry, which is a directory
  local d r=$W/v2/upd
  rm -rf $r && mkdir -p $r/blobs $r/manifests
  for d in $(ls $1/blobs/sha256); do cp $1/blobs/sha256/$d $r/blobs/sha256:$d; done
  d=$(jq -r '.manifests[0].digest' $1/index.json)
  for d in 1 $d; do
    cp $r/blobs/$(jq -r '.manifests[0].digest' $1/index.json) $r/manifests/$d
    echo application/vnd.oci.image.manifest.v1+json >$r/manifests/$d.type
  done
}
`

// updState is all that a case asserts of a pod, in one look.
type updState struct {
	Active, Invocation, Image string
	Generation                int
	State, Last               string
	Events                    int
	// Running is how many pods of this name run, Processes how many processes of /svc they have.
	Running, Processes int
	// Answer is what the app says when it is asked: the content of its image's /v.
	Answer string
	// Trial is the newest generation that was tried: its number, state, image and reason.
	Trial updTrial
}

type updTrial struct {
	Number               int
	State, Image, Reason string
}

const updLook = `
	name=$1 unit=rkt@$1.service
	id=$(systemctl show -P InvocationID $unit)
	uuid=${id:0:8}-${id:8:4}-${id:12:4}-${id:16:4}-${id:20}
	image=$(jq -r '.apps[0].image.id' /var/lib/rkt/pods/run/$uuid/pod 2>/dev/null)
	running=$(rkt list --format=json | jq --arg n $name '[.[] | select(.declared_name == $n and .state == "running")] | length')
	processes=0
	for pid in $(cat /sys/fs/cgroup/machine.slice/$unit/payload/*/app.service/cgroup.procs 2>/dev/null); do
		[[ $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) != "/svc "* ]] || processes=$((processes + 1)) # not the health check
	done
	leader=$(machinectl show -p Leader --value $name 2>/dev/null)
	answer=$([[ -z $leader ]] || timeout 30 nsenter -t $leader -n bash -c 'cat </dev/tcp/127.0.0.1/7000' 2>&1)
	rkt pod history $name --format=json | jq -c --arg a "$(systemctl is-active $unit)" --arg i "$id" --arg m "$image" --arg w "$answer" --argjson r $running --argjson p $processes \
		'([.events[] | select(.event == "trial")][-1] // {generation: 0, apps: [{id: ""}]}) as $t | ([.generations[] | select(.generation == $t.generation)][0] // {state: "", reason: ""}) as $g |
		{Active: $a, Invocation: $i, Image: $m, Running: $r, Processes: $p, Answer: $w, Generation: .generation, State: .state, Events: (.events | length),
		Last: (.events[-1] | .event + " " + (.generation | tostring) + " " + (.reason // "")), Trial: {Number: $t.generation, State: $g.state, Image: $t.apps[0].id, Reason: ($g.reason // "")}}'`

func (f *fixture) updState(name string) updState {
	f.t.Helper()
	return object[updState](f.t, f.Run(f.t, "bash", "-uc", updLook, "-", name))
}

// updates makes the base of all variants, and the script.
func updates(t *testing.T) *fixture {
	t.Helper()
	f := open(t)
	image := f.svc("upd", appOf("/svc", "answer=127.0.0.1:7000", "notify=0s", "wait=1h"))
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
		"rkt": m{"net": "none", "insecureOptions": []string{"image", "http"}, "update": m{"timeout": "20s", "settle": "4s"}}}, m{"Restart": restart, "RestartSec": "100ms"})
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

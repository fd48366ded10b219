//go:build boot

package boot

import (
	"fmt"
	"strings"
	"testing"
)

// script runs a pod of one busybox app and returns what the app printed; the pod must succeed.
func (f *fixture) script(t *testing.T, script string, podFlags []string, appFlags ...string) string {
	t.Helper()
	out, all, code := f.runPod(append(append([]string{"--net=none"}, podFlags...), bb(script, appFlags...)...)...)
	if code != 0 {
		t.Errorf("status %d:\n%s", code, all)
	}
	return out
}

func TestConfinement(t *testing.T) {
	f := open(t)
	before := f.snapshot()

	t.Run("defaults", func(t *testing.T) {
		out := f.script(t, `grep -E '^(CapBnd|CapEff|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
			for p in /proc/sysrq-trigger /proc/sys/kernel/domainname /sys/kernel/x; do (echo h >$p) 2>/dev/null && echo "$p is writable"; done
			(head -c1 /proc/kcore >/dev/null) 2>/dev/null && echo "/proc/kcore is readable"
			cat /proc/kallsyms 2>/dev/null | head -c 10
			mknod /tmp/disk b 254 0 2>/dev/null && head -c1 /tmp/disk >/dev/null 2>&1 && echo "the disk is readable"
			mount -t tmpfs x /mnt 2>/dev/null && echo "mount works"
			unshare -U true 2>/dev/null && echo "user namespaces work"
			hostname x 2>/dev/null && echo "hostname works"
			ls /proc/1/root/rkt >/dev/null 2>&1 && echo "the pod's root is visible"
			ip link add d type dummy 2>/dev/null && echo "ip link works"
			echo $(ls /dev); stat -c %a /dev/shm /dev/null /tmp; true`, nil)
		equal(t, "facts", out, "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n"+
			"console core fd full log mqueue net null ptmx pts random shm stderr stdin stdout tty urandom zero\n1777\n666\n1777\n")
	})
	t.Run("no new privileges", func(t *testing.T) {
		// A user other than root cannot gain any.
		image := f.image("nnp", "busybox", "--name", "example.com/nnp", "--manifest", `{"app": {"user": "nobody", "group": "nogroup", "isolators": [
			{"name": "os/linux/no-new-privileges", "value": true}], "exec": ["/bin/grep", "-E", "NoNewPrivs:|^CapEff", "/proc/self/status"]}}`)
		out, all, code := f.runPod("--net=none", image)
		if code != 0 || out != "CapEff:\t0000000000000000\nNoNewPrivs:\t1\n" {
			t.Errorf("status %d:\n%s", code, all)
		}
	})
	t.Run("capabilities", func(t *testing.T) {
		const bounding = `grep CapBnd /proc/self/status`
		equal(t, "retained", f.script(t, bounding, nil, "--caps-retain=CAP_NET_ADMIN,CAP_CHOWN"), "CapBnd:\t0000000000001001\n")
		equal(t, "removed", f.script(t, bounding, nil, "--caps-remove=CAP_KILL,CAP_NET_RAW"), "CapBnd:\t00000000a80405db\n")
		f.refused(t, []string{"CAP_NONE"}, append([]string{"run"}, bb("true", "--caps-retain=CAP_NONE")...)...)
	})
	t.Run("insecure options", func(t *testing.T) {
		out, all, code := f.runPod(append([]string{"--insecure-options=capabilities,seccomp,paths", "--net=none"},
			bb(`grep -E '^(CapBnd|Seccomp):' /proc/self/status; mount | grep -c 'on /proc/sysrq-trigger'; true`)...)...)
		if code != 0 || strings.Contains(out, "a80425fb") {
			t.Errorf("status %d, %q:\n%s", code, out, all)
		}
	})
	t.Run("read-only root", func(t *testing.T) {
		equal(t, "writing", f.script(t, `touch /x 2>&1 || true; touch /dev/shm/x && echo "shm ok"`, nil, "--readonly-rootfs=true"),
			"touch: /x: Read-only file system\nshm ok\n")
	})
	t.Run("host name and hosts", func(t *testing.T) {
		equal(t, "names", f.script(t, `hostname; cat /etc/hostname; grep -c "localhost.*my-host" /etc/hosts`, []string{"--hostname=my-host"}), "my-host\nmy-host\n1\n")
		f.refused(t, []string{"hostname"}, append([]string{"run", "--hostname=a b"}, bb("true")...)...)
	})
	t.Run("no overlay", func(t *testing.T) {
		equal(t, "root", f.script(t, `mount | grep -c '^overlay on / '; touch /x && ls /x`, []string{"--no-overlay"}), "0\n/x\n")
	})
	t.Run("standard input", func(t *testing.T) {
		equal(t, "input", f.script(t, `cat; [ -t 0 ] || echo "no terminal"`, nil), "no terminal\n")
	})
	f.unchanged(before)
}

// TestUsers: check list: runtime 15; cli 14
func TestUsers(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	for _, c := range []struct {
		name, want string
		flags      []string
	}{
		{"default", "0 0 [0] /root", nil},
		{"name", "999 999 [999] /root", []string{"--user=redis", "--group=redis"}},
		{"number without an entry", "4242 4343 [4343] /root", []string{"--user=4242", "--group=4343"}},
		{"owner of a path", "0 0 [0] /root", []string{"--user=/tmp", "--group=/tmp"}},
		{"supplementary groups", "999 999 [7 8 999] /root", []string{"--user=redis", "--group=redis", "--supplementary-gids=7,8"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			equal(t, "identity", f.script(t, `set -- $(grep ^Groups: /proc/self/status); shift; echo "$(id -u) $(id -g) [$*] $HOME"`, nil, c.flags...), c.want+"\n")
		})
	}
	for _, c := range []struct{ flag, name string }{{"--user=nosuch", "nosuch"}, {"--group=nosuch", "nosuch"}, {"--user=/no/such/path", "/no/such/path"}} {
		t.Run(c.flag, func(t *testing.T) {
			_, all, code := f.runPod(append([]string{"--net=none"}, bb("true", c.flag)...)...)
			if code == 0 || !strings.Contains(all, c.name) {
				t.Errorf("status %d:\n%s", code, all)
			}
		})
	}
	f.unchanged(before)
}

// TestEnvironment: check list: runtime 11, 13; cli 13
func TestEnvironment(t *testing.T) {
	f := open(t)
	image := f.image("env", "busybox", "--name", "example.com/env", "--manifest",
		`{"app": {"exec": ["/bin/sh", "-c", "echo $A $B $C $D $E; env | sort"], "environment": [
			{"name": "A", "value": "image"}, {"name": "B", "value": "image"}, {"name": "C", "value": "image"}, {"name": "D", "value": "image"}]}}`)
	f.Write(t, "/run/env-file", 0o644, []byte("# comment\nB=file\nC=file\nD=file\n"))
	before := f.snapshot()
	stdout, stderr, code := f.Try("env", "A=inherited", "E=inherited", "rkt", "run", "--net=none", "--inherit-env",
		"--set-env-file=/run/env-file", "--set-env=C=option", "--set-env=D=option", image, "--name=app", "--environment=D=app")
	out := outputs(stdout + stderr)["app"]
	first, _, _ := strings.Cut(out, "\n")
	if code != 0 || first != "image file option app inherited" {
		t.Errorf("status %d, %q:\n%s%s", code, first, stdout, stderr)
	}
	contains(t, "environment", out, "AC_APP_NAME=app\n", "HOME=/root\n", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n", "container=rkt\n")
	f.refused(t, []string{"NAME"}, append([]string{"run", "--set-env=NAME"}, bb("true")...)...)

	// Byte for byte, whatever systemd thinks of such characters.
	f.declare("env", pod(app("app", `printf '<%s>\n' "$V"`, m{"environment": m{"V": `% %% $HOME ${X} \n "q" 'q' ;# ü`}})))
	f.Try("systemctl", "start", "rkt@env")
	f.ended("rkt@env")
	equal(t, "a hostile value", f.appLog("env", "app"), `<% %% $HOME ${X} \n "q" 'q' ;# ü>`+"\n")
	f.forget("env")
	f.unchanged(before)
}

// TestVolumes: check list: runtime 23, 24, 25; cli 10, 11
func TestVolumes(t *testing.T) {
	f := open(t)
	f.sh(`rm -rf /srv/vol; mkdir -p /srv/vol/data /srv/vol/links; echo old >/srv/vol/data/file; echo single >/srv/vol/one
		mkdir -p /srv/vol/data/below; mount -t tmpfs below /srv/vol/data/below; echo mounted >/srv/vol/data/below/f`)
	t.Cleanup(func() { f.sh("umount /srv/vol/data/below; rm -rf /srv/vol") })
	before := f.snapshot()
	mount := func(volume, target string) string { return fmt.Sprintf("--mount=volume=%s,target=%s", volume, target) }

	t.Run("host", func(t *testing.T) {
		out := f.script(t, `cat /data/file; echo new >/data/file && echo written; cat /data/below/f`,
			[]string{"--volume=d,kind=host,source=/srv/vol/data"}, mount("d", "/data"))
		equal(t, "output", out, "old\nwritten\nmounted\n")
		equal(t, "the host's file", f.Read(t, "/srv/vol/data/file"), "new\n")
	})
	t.Run("not recursive", func(t *testing.T) {
		out := f.script(t, `ls /data/below`, []string{"--volume=d,kind=host,source=/srv/vol/data,recursive=false"}, mount("d", "/data"))
		equal(t, "output", out, "")
	})
	t.Run("read-only", func(t *testing.T) {
		out := f.script(t, `touch /data/x 2>/dev/null || echo refused; touch /data/below/x 2>/dev/null || echo "refused below"`,
			[]string{"--volume=d,kind=host,source=/srv/vol/data,readOnly=true"}, mount("d", "/data"))
		equal(t, "output", out, "refused\nrefused below\n")
	})
	t.Run("file", func(t *testing.T) {
		out := f.script(t, `cat /etc/deep/conf; ls -l /etc/deep | wc -l`, []string{"--volume=c,kind=host,source=/srv/vol/one"}, mount("c", "/etc/deep/conf"))
		equal(t, "output", out, "single\n2\n")
	})
	t.Run("empty", func(t *testing.T) {
		out := f.script(t, `stat -c '%a %u %g' /e; touch /e/x && ls /e`, []string{"--volume=e,kind=empty,mode=0710,uid=5,gid=6"}, mount("e", "/e"))
		equal(t, "output", out, "710 5 6\nx\n")
	})
	t.Run("shared", func(t *testing.T) {
		_, all, code := f.runPod("--net=none", "--volume=e,kind=empty", mount("e", "/e"),
			busybox, "--name=writer", "--exec=/bin/sh", "--", "-c", "echo hello >/e/.new; mv /e/.new /e/msg", "---",
			busybox, "--name=reader", "--exec=/bin/sh", "--", "-c", "until [ -e /e/msg ]; do sleep 0.05; done; cat /e/msg", "---")
		equal(t, "the reader's output", outputs(all)["reader"], "hello\n")
		equal(t, "status", code, 0)
	})
	t.Run("target through links", func(t *testing.T) {
		// Links of the image are those of its own root: absolute ones, and ones that climb.
		f.sh(`mkdir -p /srv/vol/img && ln -sfn /real /srv/vol/img/abs && ln -sfn ../../../../../../real /srv/vol/img/up && mkdir -p /srv/vol/img/real`)
		dir := t.TempDir()
		if err := linkTree(dir); err != nil {
			t.Fatal(err)
		}
		image := f.image("links", "busybox", "--name", "example.com/links", "--file", dir+"/links:/links")
		out, all, code := f.runPod("--net=none", "--volume=a,kind=host,source=/srv/vol/data", "--volume=b,kind=host,source=/srv/vol/one", image, "--name=app",
			mount("a", "/links/abs/d"), mount("b", "/links/up/f"), "--exec=/bin/sh", "--", "-c", "cat /real/d/file /real/f; ls /links/abs/")
		if code != 0 || out != "new\nsingle\nd\nf\n" {
			t.Errorf("status %d, output %q:\n%s", code, out, all)
		}
		equal(t, "folders on the host", f.sh("ls -d /real 2>/dev/null || true"), "")
	})
	t.Run("declared", func(t *testing.T) {
		p := pod(app("app", `cat /data/file`, m{"mounts": []string{"volume=d,target=/data"}}))
		p["volumes"] = []string{"d,kind=host,source=/srv/vol/data,readOnly=true"}
		f.declare("vol", p)
		contains(t, "RequiresMountsFor", f.show("rkt@vol", "RequiresMountsFor"), "/srv/vol/data")
		f.Try("systemctl", "start", "rkt@vol")
		equal(t, "is-active", f.ended("rkt@vol"), "inactive")
		equal(t, "output", f.appLog("vol", "app"), "new\n")
		f.forget("vol")
	})
	t.Run("refused", func(t *testing.T) {
		f.refused(t, []string{"/srv/vol/none"}, append([]string{"run", "--net=none", "--volume=d,kind=host,source=/srv/vol/none"}, bb("true", mount("d", "/d"))...)...)
		f.refused(t, []string{"other"}, append([]string{"run", "--net=none"}, bb("true", mount("other", "/d"))...)...)
		f.refused(t, []string{"kind"}, append([]string{"run", "--volume=d,kind=cloud,source=/srv"}, bb("true")...)...)
	})
	f.unchanged(before)
}

func TestAppLimits(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	p := pod(app("app", forever(0), m{"isolators": []m{
		{"name": "resource/memory", "value": m{"limit": "64Mi"}},
		{"name": "resource/cpu", "value": m{"limit": "500m"}}}}))
	p["isolators"] = []m{{"name": "resource/memory", "value": m{"limit": "128Mi"}}}
	f.declare("limits", p)
	f.start("limits")
	show := f.systemctl("-M", "limits", "show", "app.service", "-p", "MemoryMax", "-p", "CPUQuotaPerSecUSec")
	contains(t, "the app's unit", show, "MemoryMax=67108864\n", "CPUQuotaPerSecUSec=500ms\n")
	equal(t, "the pod's MemoryMax", f.show("rkt@limits", "MemoryMax"), "134217728")
	f.forget("limits")

	uuid := f.background(append([]string{"--net=none"}, bb(forever(0), "--memory=32Mi", "--cpu=250m", "--cpu-shares=512")...)...)
	show = f.systemctl("-M", "rkt-"+uuid, "show", "app.service", "-p", "MemoryMax", "-p", "CPUQuotaPerSecUSec")
	contains(t, "the app's unit", show, "MemoryMax=33554432\n", "CPUQuotaPerSecUSec=250ms\n")
	f.rkt("stop", uuid)
	f.rkt("status", uuid, "--wait=60s")
	f.unchanged(before)
}

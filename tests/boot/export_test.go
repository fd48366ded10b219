//go:build boot

package boot

import (
	"strings"
	"testing"
)

// TestExport: what an app left in its root is in the image that rkt export
// makes, with the owners that it had in the app, and runs again.
//
// check list: runtime 42; pod-lifecycle 19; cli 36
func TestExport(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.sh("rm -rf /var/tmp/export; mkdir /var/tmp/export")
	t.Cleanup(func() { f.sh("rm -rf /var/tmp/export") })
	const change = `echo new >/var/tmp/file; chown 7:8 /var/tmp/file; chmod 0640 /var/tmp/file; ln /var/tmp/file /var/tmp/hard; ln -s file /var/tmp/soft
		mkdir -p /data/sub; mkfifo /data/pipe; rm -rf /mnt; echo x >>/etc/passwd`
	const look = `cat /var/tmp/file; stat -c '%u:%g %a %h' /var/tmp/file; readlink /var/tmp/soft; ls -d /data/sub; test -p /data/pipe && echo pipe; ls -d /mnt 2>&1; tail -1 /etc/passwd`
	const want = "new\n7:8 640 2\nfile\n/data/sub\npipe\nls: /mnt: No such file or directory\nx\n"
	for _, c := range []struct {
		name  string
		flags []string
	}{{"overlay", nil}, {"copied", []string{"--no-overlay"}}, {"private users", []string{"--private-users"}}, {"private users, copied", []string{"--private-users", "--no-overlay"}}} {
		t.Run(c.name, func(t *testing.T) {
			f.sh("rm -f /run/export-uuid")
			_, stderr, code := f.Try(append(append([]string{"rkt", "run", "--net=none", "--uuid-file-save=/run/export-uuid"}, c.flags...), bb(change)...)...)
			if code != 0 {
				t.Fatalf("status %d\n%s", code, stderr)
			}
			uuid := strings.TrimSpace(f.Read(t, "/run/export-uuid"))
			file := "/var/tmp/export/" + uuid + ".aci"
			f.rkt("export", uuid, file)
			f.refused(t, []string{"exists", "--overwrite"}, "export", uuid, file)
			f.rkt("export", "--overwrite", uuid, file)
			equal(t, "mode of the file", f.Run(t, "stat", "-c", "%a", file), "644\n")
			out, all, code := f.runPod("--net=none", "--insecure-options=image", file, "--name=again", "--exec=/bin/sh", "--", "-c", look)
			if code != 0 || out != want {
				t.Errorf("status %d, output %q, want %q\n%s", code, out, want, all)
			}
			// a pod that was only marked can be exported, too
			f.rkt("gc", "--mark-only")
			f.rkt("export", "--overwrite", uuid, file)
		})
	}
	t.Run("several apps", func(t *testing.T) {
		args := append([]string{"rkt", "run", "--net=none", "--uuid-file-save=/run/export-uuid"}, bb("echo one >/who", "--name=one")...)
		args = append(append(args, "---"), bb("echo two >/who", "--name=two")...)
		f.Run(t, args...)
		uuid := strings.TrimSpace(f.Read(t, "/run/export-uuid"))
		f.refused(t, []string{"one, two", "--app"}, "export", uuid, "/var/tmp/export/x.aci")
		f.refused(t, []string{`no app "three"`}, "export", "--app=three", uuid, "/var/tmp/export/x.aci")
		f.rkt("export", "--app=two", uuid, "/var/tmp/export/two.aci")
		out, all, _ := f.runPod("--net=none", "--insecure-options=image", "/var/tmp/export/two.aci", "--exec=/bin/cat", "--", "/who")
		if out != "two\n" {
			t.Errorf("output %q\n%s", out, all)
		}
	})
	t.Run("refused", func(t *testing.T) {
		uuid := f.background(append([]string{"--net=none"}, bb(forever(0))...)...)
		f.refused(t, []string{"is running"}, "export", uuid, "/var/tmp/export/y.aci")
		f.refused(t, []string{"FILE.aci"}, "export", uuid, "/var/tmp/export/y.tar")
		f.rkt("stop", uuid)
		f.rkt("status", uuid, "--wait=60s")
		equal(t, "files left by refusals", f.Run(t, "bash", "-c", "ls -A /var/tmp/export | grep -c '[xy]\\.' || true"), "0\n")
	})
	f.sh("rm -rf /var/tmp/export /run/export-uuid")
	f.unchanged(before)
}

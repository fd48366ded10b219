//go:build boot

package boot

import "testing"

// TestSandboxPort: a mutable pod forwards a port that no app declares, to
// whichever app listens there later.
//
// check list: networking 21
func TestSandboxPort(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	uuid := f.sandbox("--net=default", "--port=http:tcp:80:127.0.0.1:18094")
	contains(t, "the status", f.rkt("status", uuid), "port=http tcp 127.0.0.1:18094 -> 172.16.28.")
	for _, name := range []string{"first", "second"} {
		f.add(uuid, name, "echo "+name+" >/index.html; exec httpd -f -p 80 -h /")
		f.app("start", uuid, name)
		f.Eventually(t, soon, "bash", "-c", `[ "$(curl -sS --max-time 5 http://127.0.0.1:18094/)" = "$1" ]`, "-", name)
		f.app("stop", uuid, name)
	}
	f.sh("systemctl stop sandbox; systemctl reset-failed sandbox 2>/dev/null || true")
	f.gc()
	f.unchanged(before)
}

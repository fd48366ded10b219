//go:build boot

package boot

import (
	"strings"
	"testing"
	"time"
)

func TestGenerator(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.declare("good", pod(app("app", forever(0))))
	f.start("good")
	invocation := f.show("rkt@good", "InvocationID")

	t.Run("hostile files", func(t *testing.T) {
		f.sh(`cd /etc/rkt/pods
			echo '{"apps": [' >broken.json
			: >empty.json
			head -c 3000000 /dev/zero | tr '\0' '[' >huge.json
			printf '%s' '{"apps":[{"name":"a","image":"x"}],"systemd":{"unit":{"Description":"a\nb"},"install":{"WantedBy":"../../evil.target"}}}' >hostile.json
			ln -sf /dev/zero endless.json
			mkdir -p folder.json
			mkfifo pipe.json
			printf '{}' >'name with spaces.json'
			printf '{}' >..json`)
		t.Cleanup(func() {
			f.sh(`cd /etc/rkt/pods; rm -rf broken.json empty.json huge.json hostile.json endless.json folder.json pipe.json 'name with spaces.json' ..json
				systemctl daemon-reload; systemctl reset-failed 'rkt@*' 2>/dev/null || true`)
		})
		begin := time.Now()
		f.systemctl("daemon-reload")
		t.Logf("daemon-reload with hostile files: %v", time.Since(begin).Round(time.Millisecond))
		for name, want := range map[string]string{
			"broken": "/etc/rkt/pods/broken.json:2:1", "huge": "huge.json", "hostile": "hostile.json:1:", "endless": "endless.json", "folder": "folder.json", "pipe": "pipe.json",
		} {
			f.rejected(t, name, want)
		}
		// An empty file masks.
		_, stderr, code := f.Try("systemctl", "start", "rkt@empty")
		if code == 0 {
			t.Errorf("a masked pod starts: %s", stderr)
		}
		equal(t, "files outside", f.sh("find /run/systemd/generator* -name 'evil*'; ls -d /run/systemd/evil* 2>/dev/null || true"), "")
		equal(t, "the other pod", f.show("rkt@good", "InvocationID"), invocation)
		equal(t, "the other pod", f.show("rkt@good", "ActiveState"), "active")
	})

	t.Run("a thousand", func(t *testing.T) {
		f.Write(t, "/run/one.json", 0o644, []byte(`{"apps":[{"name":"a","image":"/x.aci"}],"systemd":{"service":{"MemoryMax":"64M"}}}`))
		t.Cleanup(func() { f.sh("rm -f /etc/rkt/pods/thousand*.json; systemctl daemon-reload") })
		begin := time.Now()
		f.systemctl("daemon-reload")
		few := time.Since(begin)
		f.sh("for i in {1..1000}; do cp /run/one.json /etc/rkt/pods/thousand$i.json; done")
		begin = time.Now()
		f.systemctl("daemon-reload")
		all := time.Since(begin)
		alone := f.sh(`mkdir -p /run/gen/{a,b,c}; t=$(date +%s%N); $(find /usr/lib/systemd/system-generators -name 'rkt-generator') /run/gen/a /run/gen/b /run/gen/c; echo $((($(date +%s%N) - t) / 1000)); rm -rf /run/gen`)
		t.Logf("daemon-reload with few pods %v, with 1000 more %v; the generator alone %s µs", few.Round(time.Millisecond), all.Round(time.Millisecond), strings.TrimSpace(alone))
		equal(t, "MemoryMax of the last", f.show("rkt@thousand1000", "MemoryMax"), "67108864")
		equal(t, "the other pod", f.show("rkt@good", "InvocationID"), invocation)
	})

	t.Run("drop-in", func(t *testing.T) {
		f.Write(t, "/etc/rkt/pods/good.json.d/10-more.json", 0o644, []byte(`{"systemd": {"service": {"MemoryMax": "77M"}, "unit": {"Description": "Changed"}}}`))
		f.systemctl("daemon-reload")
		equal(t, "MemoryMax", f.show("rkt@good", "MemoryMax"), "80740352")
		equal(t, "Description", f.show("rkt@good", "Description"), "Changed")
		equal(t, "the pod", f.show("rkt@good", "InvocationID"), invocation)
		f.sh("rm -r /etc/rkt/pods/good.json.d; systemctl daemon-reload")
		equal(t, "MemoryMax without it", f.show("rkt@good", "MemoryMax"), "infinity")
	})

	t.Run("order of directories", func(t *testing.T) {
		f.Write(t, "/run/rkt/pods/good.json", 0o644, []byte(`{"apps": [], "bad": 1}`))
		f.Write(t, "/usr/lib/rkt/pods/vendor.json", 0o644, []byte(`{"apps":[{"name":"a","image":"/x.aci"}],"systemd":{"unit":{"Description":"Vendor"}}}`))
		t.Cleanup(func() {
			f.sh("rm -f /run/rkt/pods/good.json /usr/lib/rkt/pods/vendor.json /etc/rkt/pods/vendor.json; rmdir --ignore-fail-on-non-empty /usr/lib/rkt/pods; systemctl daemon-reload")
		})
		f.systemctl("daemon-reload")
		equal(t, "LoadState", f.show("rkt@good", "LoadState"), "loaded")
		equal(t, "the vendor's pod", f.show("rkt@vendor", "Description"), "Vendor")
		f.sh("ln -s /dev/null /etc/rkt/pods/vendor.json; rmdir --ignore-fail-on-non-empty /usr/lib/rkt/pods; systemctl daemon-reload")
		if _, _, code := f.Try("systemctl", "start", "rkt@vendor"); code == 0 {
			t.Errorf("a masked pod starts")
		}
		f.Try("systemctl", "reset-failed", "rkt@vendor")
	})

	t.Run("template", func(t *testing.T) {
		p := pod(app("app", `echo "instance $I"; `+forever(0), m{"environment": m{"I": "%i"}}))
		p["systemd"] = m{"install": m{"DefaultInstance": "x"}, "unit": m{"Description": "Web %i"}}
		f.declare("web@", p)
		f.start("web@x")
		f.waitLog("web@x", "app", "instance x")
		equal(t, "Description", f.show("rkt@web@x", "Description"), "Web x")
		contains(t, "machines", f.Run(t, "machinectl", "list", "--no-legend"), "web-x")
		contains(t, "rkt list", f.rkt("list", "--format=json"), `"declared_name":"web@x"`)
		f.start("web@y")
		f.waitLog("web@y", "app", "instance y")
		f.stop("web@x")
		f.stop("web@y")
	})

	t.Run("install", func(t *testing.T) {
		p := pod(app("app", forever(0)))
		p["systemd"] = m{"install": m{"WantedBy": "multi-user.target"}}
		f.declare("wanted", p)
		contains(t, "wants", f.show("multi-user.target", "Wants"), "rkt@wanted.service")
	})
	f.forget("good", "web@", "wanted")
	f.unchanged(before)
}

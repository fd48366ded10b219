//go:build vm

package vm

import (
	"strings"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/tests/host"
)

// TestBoot1Coredump: coredumpctl of the host names the pod and the app of a
// crash. The memory of an app with a secret is in no core dump, unless its unit asks for it.
func TestBoot1Coredump(t *testing.T) {
	h := host.Open(t)
	h.Run(t, "rkt", "trust", "--prefix=example.com", "--skip-fingerprint-review", busybox+".pub")
	before := snapshot(t, h)
	crash := func(name string, service m, credentials ...any) m {
		a := named(name, `read s <$SECRET; echo ready; while ! test -e /run/go; do sleep 1; done; kill -SEGV $$`)
		a["credentials"] = credentials
		a["mounts"] = []string{"volume=go,target=/run"}
		a["systemd"] = m{"service": service}
		return a
	}
	secret := m{"name": "one", "env": "SECRET"}
	declare(t, h, "hides", []m{crash("front", m{"LimitCORE": "infinity"}, secret)}, nil, nil)
	declare(t, h, "shows", []m{crash("back", m{"CoredumpFilter": "0x33"}, secret)}, nil, nil)
	h.Run(t, "bash", "-c", `mkdir -p /srv/crash; cd /etc/rkt/pods; sed -i 's|"apps":|"volumes":["go,kind=host,source=/srv/crash"],"apps":|; s|"net":|"credentials":{"one":{"set":"canary-'crash'-11"}},"net":|' hides.json shows.json; systemctl daemon-reload`)
	h.RunFor(t, patience, "systemctl", "start", "rkt@hides", "rkt@shows")
	h.Run(t, "touch", "/srv/crash/go")
	for pod, app := range map[string]string{"hides": "front", "shows": "back"} {
		unit := "rkt@" + pod + ".service"
		h.Eventually(t, 3*time.Minute, "bash", "-c", "coredumpctl -q list COREDUMP_UNIT="+unit+" | grep -q 'SIGSEGV present' && ! systemctl is-active "+unit)
		info := h.Run(t, "coredumpctl", "--no-pager", "info", "COREDUMP_UNIT="+unit)
		for _, want := range []string{"Unit: " + unit, "/payload/system.slice/" + app + ".service", "Signal: 11 (SEGV)"} {
			if !strings.Contains(info, want) {
				t.Errorf("coredumpctl info of %s lacks %q:\n%s", pod, want, info)
			}
		}
		found := strings.TrimSpace(h.Run(t, "bash", "-c", "coredumpctl -q dump -o /var/tmp/core COREDUMP_UNIT="+unit+" >&2; grep -ac canary-'crash'-11 /var/tmp/core; rm /var/tmp/core"))
		if (found == "0") != (pod == "hides") {
			t.Errorf("lines of the core dump of %s with the secret: %s", pod, found)
		}
	}
	h.Run(t, "bash", "-c", "rm -r /srv/crash /etc/rkt/pods/hides.json /etc/rkt/pods/shows.json; systemctl daemon-reload; systemctl reset-failed 'rkt@*'; rm -f /var/lib/systemd/coredump/*")
	unchanged(t, h, before)
}

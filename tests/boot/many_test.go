//go:build boot

package boot

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Twenty, since a nested host shares the kernel's default of 128 inotify
// instances with all that runs on the machine, and every pod takes three. The
// virtual machine starts more.
const many = 20

func TestManyPods(t *testing.T) {
	f := open(t)
	f.Alone(t)
	before := f.snapshot()
	text, err := json.Marshal(pod(app("app", forever(0))))
	if err != nil {
		t.Fatal(err)
	}
	f.Write(t, "/run/many.json", 0o644, text)
	var names, units []string
	for i := range many {
		names = append(names, fmt.Sprintf("many%d", i))
		units = append(units, "rkt@"+names[i]+".service")
	}
	t.Cleanup(func() { f.forget(names...) })
	f.sh("for i in $(seq 0 " + fmt.Sprint(many-1) + "); do cp /run/many.json /etc/rkt/pods/many$i.json; done; systemctl daemon-reload")
	begin := time.Now()
	f.RunFor(t, 5*time.Minute, append([]string{"systemctl", "start"}, units...)...)
	t.Logf("%d pods started in %v", many, time.Since(begin).Round(time.Millisecond))
	active, _, _ := f.Try(append([]string{"systemctl", "is-active"}, units...)...)
	equal(t, "active units", strings.Count(active, "active\n")-strings.Count(active, "inactive\n"), many)
	equal(t, "machines", len(strings.Fields(f.sh("machinectl list --no-legend | awk '/^many/ {print $1}'"))), many)
	running := 0
	for _, p := range f.listed() {
		if p["state"] == "running" {
			running++
		}
	}
	equal(t, "running pods", running, many)
	begin = time.Now()
	f.RunFor(t, 5*time.Minute, append([]string{"systemctl", "stop"}, units...)...)
	t.Logf("stopped in %v", time.Since(begin).Round(time.Millisecond))
	equal(t, "failed units", f.sh("systemctl list-units --failed --plain --no-legend 'rkt@*'"), "")
	f.forget(names...)
	f.unchanged(before)
}

//go:build boot

package boot

import (
	"strings"
	"testing"
)

// TestProfiles: a profile confines what runs, and the score says how far.
func TestProfiles(t *testing.T) {
	f := open(t)
	look := `grep -E '^(CapBnd|NoNewPrivs):' /proc/self/status | tr '\t' ' '; echo map $(cat /proc/self/uid_map); (echo x >/root-file) 2>/dev/null && echo writable
ls /sys/class/net; echo done; exec sleep infinity`
	scores := map[string]float64{}
	for _, profile := range []string{"default", "strict", "trusted", "nonetwork"} {
		name := "prof-" + profile
		p := m{"apps": []m{app("a", look), app("b", "exec sleep infinity", m{"readOnlyRootFS": false, "isolators": []m{{"name": "os/linux/capabilities-retain-set", "value": m{"set": []string{"CAP_KILL"}}}}})},
			"rkt": m{"profile": profile}}
		f.declare(name, p)
		f.start(name) // all stay until the end
		f.waitLog(name, "a", "done")
		log := f.appLog(name, "a")
		strict, trusted := profile == "strict", profile == "trusted"
		for text, want := range map[string]bool{
			"NoNewPrivs: 1":            strict,
			"writable":                 !strict,
			"map 0 0 4294967295":       trusted,
			"eth0":                     profile == "default" || trusted,
			"CapBnd: 0000000000000400": false, // of a pod with private users even that one is taken
			"CapBnd: 0000000000000000": strict,
		} {
			if strings.Contains(log, text) != want {
				t.Errorf("profile %s: %q in the log should be %v:\n%s", profile, text, want, log)
			}
		}
		tun := strings.Contains(f.show("rkt@"+name, "DeviceAllow"), "/dev/net/tun")
		equal(t, "tun allowed under "+profile, tun, !strict)
		type score struct {
			Exposure float64
			Rating   string
			Apps     []struct{ Exposure float64 }
			Unit     struct {
				Exposure float64
				Missing  string
			}
			Profile string
		}
		s := object[score](t, f.sh("rkt pod security --format=json "+name))
		if s.Profile != profile || len(s.Apps) != 2 || s.Unit.Exposure < 1 || s.Unit.Missing != "" || s.Rating == "" {
			t.Errorf("rkt pod security: %+v", s)
		}
		scores[profile] = s.Apps[0].Exposure
		// The file's own settings count more than the profile.
		b := object[m](t, f.Run(t, "bash", "-c", `cat /proc/$(machinectl show `+name+` -p Leader --value)/root/rkt/apps/b.json`))
		equal(t, "capabilities of b under "+profile, b["caps"], float64(1<<5))
		equal(t, "read-only root of b under "+profile, b["readOnlyRoot"], nil)
	}
	if !(scores["strict"] < scores["nonetwork"] && scores["nonetwork"] < scores["default"] && scores["default"] < scores["trusted"]) {
		t.Errorf("the scores are in no order: %v", scores)
	}
	f.declare("prof-limit", m{"apps": []m{app("a", "true")}, "rkt": m{"profile": "trusted"}})
	_, _, code := f.trySh("rkt pod security --threshold=2 prof-limit")
	equal(t, "status above the threshold", code, 1)
	_, _, code = f.trySh("rkt pod security --threshold=9.9 prof-limit")
	equal(t, "status below the threshold", code, 0)
	contains(t, "rkt pod security", f.sh("rkt pod security prof-limit"), "✗", "runs as root", "→ Overall exposure of pod prof-limit (profile trusted): ")
}

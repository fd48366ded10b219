//go:build boot

package boot

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

const fetchDir = "/var/tmp/podfetch"

// requests are what the server was asked for a file: the ranges, and how many bytes it sent for each.
func (f *fixture) requests(file string) (ranges []string, sent []int) {
	f.t.Helper()
	for line := range strings.Lines(f.Read(f.t, fetchDir+"/log")) {
		if w := strings.Fields(line); len(w) == 4 && w[0] == "GET" && w[1] == "/"+file {
			ranges = append(ranges, w[2])
			sent = append(sent, number(f.t, w[3]))
		}
	}
	return ranges, sent
}

// TestPodFetch: images are fetched before the first start, which waits for that; what broke off goes on where it was; and
// once they are there nobody is asked any more.
func TestPodFetch(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	server := f.webServer("podfetch-httpd")
	const dropIn = "/run/systemd/system/rkt-fetch@pfslow.service.d"
	t.Cleanup(func() {
		f.trySh("systemctl stop podfetch-httpd; rm -rf " + fetchDir + " " + dropIn + "; systemctl daemon-reload")
	})
	f.sh("rm -rf " + fetchDir + "; mkdir " + fetchDir + "; cd " + fetchDir + "; cp " + busybox + " cut.aci; tar -xzf cut.aci; " +
		`jq -c '.name = "example.com/slow"' manifest >m; mv m manifest; tar -cf slow.aci manifest rootfs; rm -r manifest rootfs`)
	serve := func() {
		f.sh("systemd-run -q --collect --unit=podfetch-httpd -p StandardOutput=append:" + fetchDir + "/log " + server + " 127.0.0.1:18196 " + fetchDir)
		f.Eventually(t, soon, "bash", "-c", "</dev/tcp/127.0.0.1/18196")
	}
	serve()
	remote := func(file string) m {
		p := pod(app("app", forever(0)))
		p["apps"].([]m)[0]["image"] = "http://127.0.0.1:18196/" + file
		p["rkt"].(m)["insecureOptions"] = []string{"image", "http"}
		return p
	}
	f.declare("pfcut", remote("cut.aci"))
	f.declare("pfslow", remote("slow.aci"))
	equal(t, "nothing waits for the network", f.sh("systemctl show -P After -P Wants -P Requires rkt@pfcut rkt-fetch@pfcut | grep -c network-online || true"), "0\n")

	// The connection breaks off in the middle, at every try.
	size := number(t, f.sh("stat -c %s "+fetchDir+"/cut.aci"))
	f.Write(t, fetchDir+"/cut.aci.cut", 0o644, []byte(strconv.Itoa(size/2)))
	_, errs, code := f.Try("rkt", "pod", "fetch", "pfcut")
	if code != 254 {
		t.Errorf("half an image was fetched: %d\n%s", code, errs)
	}
	f.sh("rm " + fetchDir + "/cut.aci.cut")
	f.Run(t, "rkt", "pod", "fetch", "pfcut")
	ranges, sent := f.requests("cut.aci")
	total := 0
	for _, n := range sent {
		total += n
	}
	if last := len(ranges) - 1; last < 1 || ranges[0] != "-" || ranges[last] != fmt.Sprintf("bytes=%d-", size/2) || total != size {
		t.Errorf("of %d bytes: ranges %q, sent %v", size, ranges, sent)
	}
	contains(t, "rkt pod list --full", f.Run(t, "rkt", "pod", "list", "--full"), "GENERATION", "app=sha512-")
	listed := object[[]struct {
		Name       string
		Generation int
		State      string `json:"generationState"`
		Images     []struct{ App, Ref, ID string }
	}](t, f.Run(t, "rkt", "pod", "list", "--format=json"))
	seen := false
	for _, p := range listed {
		if p.Name == "pfcut" {
			seen = p.Generation == 1 && p.State == "good" && len(p.Images) == 1 && p.Images[0].App == "app" && strings.HasSuffix(p.Images[0].Ref, "/cut.aci") && len(p.Images[0].ID) == len("sha512-")+128
		}
	}
	if !seen {
		t.Errorf("rkt pod list --format=json: %+v", listed)
	}
	for _, c := range []struct{ words, want string }{{"pod update pfc", "pfcut"}, {"pod rollback pfcut ''", "1"}, {"pod show pfs", "pfslow"}, {"logs pfs", "pfslow"}, {"pod fetch pfcut pf", "pfslow"}} {
		contains(t, "completion of "+c.words, f.sh("rkt __complete "+c.words+" 2>/dev/null"), c.want+"\t")
	}
	lacks(t, "completion of what is there", f.sh("rkt __complete pod fetch pfcut pf 2>/dev/null"), "pfcut\t")

	// A source that is slower than the time-out: it is extended while something comes, and the pod waits.
	f.Write(t, fetchDir+"/slow.aci.slow", 0o644, []byte("200ms"))
	f.Write(t, dropIn+"/50.conf", 0o644, []byte("[Service]\nTimeoutStartSec=4s\n"))
	f.sh("systemctl daemon-reload; systemctl start --no-block rkt@pfslow")
	f.Eventually(t, soon, "bash", "-c", `systemctl show -P StatusText rkt-fetch@pfslow | grep -qE '^Fetching http://127.0.0.1:18196/slow.aci: +[1-9]'`)
	equal(t, "the pod meanwhile", f.show("rkt@pfslow", "ActiveState"), "inactive")
	f.Eventually(t, soon, "systemctl", "-q", "is-active", "rkt@pfslow")
	if took := number(t, f.sh(`systemctl show rkt-fetch@pfslow | awk -F= '{v[$1] = $2} END {print int((v["ExecMainExitTimestampMonotonic"] - v["ExecMainStartTimestampMonotonic"]) / 1000)}'`)); took < 4000 {
		t.Errorf("the slow fetch took %d ms", took)
	}
	equal(t, "the fetch", f.show("rkt-fetch@pfslow", "Result"), "success")
	equal(t, "the pod began after the fetch had ended", f.sh(`a=$(systemctl show -P ExecMainExitTimestampMonotonic rkt-fetch@pfslow); b=$(systemctl show -P ExecMainStartTimestampMonotonic rkt@pfslow)
		[ $b -gt $a ] && echo yes`), "yes\n")
	f.stop("pfslow")

	// No source any more: both start, no fetch runs, and nobody waited.
	ranBefore := f.sh("systemctl show -P ExecMainStartTimestampMonotonic rkt-fetch@pfcut rkt-fetch@pfslow")
	f.sh("systemctl stop podfetch-httpd")
	f.systemctl("start", "rkt@pfcut", "rkt@pfslow")
	equal(t, "runs of rkt-fetch@", f.sh("systemctl show -P ExecMainStartTimestampMonotonic rkt-fetch@pfcut rkt-fetch@pfslow"), ranBefore)
	equal(t, "their conditions", f.sh("systemctl show -P ConditionResult rkt-fetch@pfcut rkt-fetch@pfslow"), "no\n\nno\n")
	// One that was never fetched says what is wrong, and does not hold the others.
	f.declare("pfgone", remote("gone.aci"))
	f.refused(t, []string{"connection refused"}, "pod", "fetch", "pfgone")
	f.sh("! systemctl start rkt@pfgone")
	contains(t, "why", f.journal("RKT_POD_NAME=pfgone", "--since", f.since), "connection refused")
	equal(t, "the others", f.sh("systemctl is-active rkt@pfcut rkt@pfslow"), "active\nactive\n")
	f.forget("pfcut", "pfslow", "pfgone")
	f.unchanged(before)
}

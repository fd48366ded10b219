//go:build boot

package boot

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// envNumber is an environment variable, or else a default.
func envNumber(t *testing.T, name string, def int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return def
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		t.Fatalf("%s=%q is no number", name, s)
	}
	return n
}

// cyclePods: a network, a volume, handlers, users of its own, two apps.
func cyclePods() map[string]m {
	handlers := []m{{"name": "pre-start", "exec": []string{"/bin/true"}}, {"name": "post-stop", "exec": []string{"/bin/true"}}}
	// One process: a shell's child between fork and exec would swallow the SIGTERM of a stop that comes so soon.
	one := app("one", "exec sleep 1000")
	two := app("two", "exec sleep 1000", m{
		"app": m{"exec": []string{"/bin/sh"}, "user": "0", "group": "0", "eventHandlers": handlers}, "mounts": []string{"volume=v,target=/v"}})
	full := pod(one, two)
	full["volumes"] = []string{"v,kind=empty"}
	full["rkt"] = m{"net": "default"}
	plain := pod(one)
	return map[string]m{"cycle-full": full, "cycle-plain": plain, "cycle-off": users(pod(one), false)}
}

// cycleScript starts and stops; killScript kills what is on its way, at random
// times, by all the names it goes by. Their arguments: count, first.
const (
	cycleScript = `
set -u
pods=(cycle-full cycle-plain cycle-plain cycle-off)
for ((i = 0; i < $1; i++)); do
	p=${pods[(i + $2) % 4]}
	systemctl start rkt@$p || { echo "start $i of $p failed"; systemctl status --no-pager rkt@$p; exit 1; }
	systemctl stop rkt@$p || { echo "stop $i of $p failed"; exit 1; }
	r=$(systemctl show --value -p Result rkt@$p)
	[ "$r" = success ] || { echo "stop $i of $p: $r"; systemctl status --no-pager rkt@$p; exit 1; }
	((i % 50 != 49)) || rkt gc --grace-period=0s >/dev/null 2>&1 || { echo "gc failed"; exit 1; }
done`
	killScript = `
set -u
RANDOM=$2
pods=(cycle-full cycle-plain cycle-off)
pause() { sleep $(printf '0.%03d' $((RANDOM % $1))); }
settled() { for ((j = 0; j < 1200; j++)); do case $(systemctl is-active rkt@$1) in inactive | failed) return ;; esac; sleep 0.05; done; echo "rkt@$1 does not end"; exit 1; }
for ((i = 0; i < $1; i++)); do
	p=${pods[RANDOM % 3]}
	case $((RANDOM % 6)) in
	0) systemctl start --no-block rkt@$p; pause 400; systemctl kill -s KILL --kill-who=main rkt@$p 2>/dev/null ;;
	1) systemctl start --no-block rkt@$p; pause 400; systemctl kill -s KILL --kill-who=all rkt@$p 2>/dev/null ;;
	2) systemctl start rkt@$p; systemctl stop --no-block rkt@$p; pause 200; systemctl kill -s KILL --kill-who=all rkt@$p 2>/dev/null ;;
	3) systemctl start rkt@$p; kill -9 $(machinectl show --value -p Leader $p) ;;
	4) timeout -s KILL $(printf '0.%03d' $((50 + RANDOM % 500))) rkt run --private-users --net=default $3 --exec /bin/sleep -- 5 ;;
	5) systemctl start rkt@$p; systemctl stop rkt@$p; timeout -s KILL $(printf '0.%03d' $((RANDOM % 80 + 1))) rkt gc --grace-period=0s ;;
	esac >/dev/null 2>&1
	systemctl stop rkt@$p 2>/dev/null
	settled $p
	systemctl reset-failed rkt@$p 2>/dev/null
	# and it starts again at once
	systemctl start rkt@$p || { echo "start after kill $i of $p failed"; systemctl status --no-pager -l rkt@$p; exit 1; }
	systemctl stop rkt@$p
	((i % 20 != 19)) || rkt gc --grace-period=0s >/dev/null 2>&1 || { echo "gc failed"; exit 1; }
done`
	// what else there is to leak: ranges of users, locks, what PID 1 and machined hold open
	moreScript = `
section() { echo "== $1"; }
section ranges; find /var/lib/rkt/pods -name 'private-users*' | sort
section locks; find /var/lib/rkt/locks /var/lib/rkt/cas/*locks /run/systemd/nspawn/locks /run/rkt -type f 2>/dev/null | sort
section units; systemctl list-units --all --plain --no-legend 'machine-*' 'rkt-*.scope' '*.mount' | awk '{print $1}' | grep -v credentials | sort
section transient; ls /run/systemd/transient 2>/dev/null | grep -E 'rkt|machine' | sort
section network; ip -br link | wc -l; ip rule | wc -l; ls /var/lib/cni/results /var/lib/cni/networks 2>/dev/null | wc -l
section filters; find /var/lib/rkt/filters -name '*.tmp*' 2>/dev/null
true`
	openScript = `for p in 1 $(systemctl show --value -p MainPID systemd-machined dbus systemd-journald); do [ "$p" = 0 ] || ls /proc/$p/fd | wc -l; done | awk '{n += $1} END {print n}'
		find /proc/[0-9]*/fd -lname 'anon_inode:inotify' 2>/dev/null | wc -l`
)

// Pods that are started and stopped, or killed at random times, many times over,
// leave nothing. RKT_TEST_CYCLES and RKT_TEST_KILLS say how many times; RKT_TEST_SEED
// repeats the times of a run.
//
// check list: runtime 10
func TestCyclesLeaveNothing(t *testing.T) {
	f := open(t)
	cycles, kills := envNumber(t, "RKT_TEST_CYCLES", 40), envNumber(t, "RKT_TEST_KILLS", 10)
	seed := envNumber(t, "RKT_TEST_SEED", int(time.Now().UnixNano()%30000))
	t.Logf("%d cycles, %d kills, RKT_TEST_SEED=%d", cycles, kills, seed)
	for name, p := range cyclePods() {
		f.declare(name, p)
	}
	held := func() (files, inotify int) {
		if _, err := fmt.Sscan(f.Run(t, "bash", "-c", openScript), &files, &inotify); err != nil {
			t.Fatal(err)
		}
		return
	}
	all := func() string { return f.snapshot() + f.Run(t, "bash", "-c", moreScript) }
	// The first of each kind makes what stays: images, chains of the firewall, a bridge.
	const chunk = 50
	do := func(script string, n int, more func(int) int) {
		for done := 0; done < n && !t.Failed(); done += chunk {
			begin := time.Now()
			out, errs, code := f.TryFor(10*time.Minute, "bash", "-c", script, "-", strconv.Itoa(min(chunk, n-done)), strconv.Itoa(more(done)), busybox)
			if code != 0 {
				t.Fatalf("after %d: status %d\n%s%s", done, code, out, errs)
			}
			if n > chunk {
				t.Logf("%d of %d, %v", min(done+chunk, n), n, time.Since(begin).Round(time.Second))
			}
		}
	}
	do(cycleScript, 4, func(int) int { return 0 })
	f.sh("timeout 60 rkt run --private-users --net=default " + busybox + " --exec /bin/true")
	f.gc()
	before := all()
	files, inotify := held()
	same := func(what string) {
		t.Helper()
		end := time.Now().Add(soon)
		var after string
		for {
			f.gc()
			if after = all(); after == before || time.Now().After(end) {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		equal(t, "the host after the "+what, strings.Split(after, "\n"), strings.Split(before, "\n"))
		nowFiles, nowInotify := held()
		if nowFiles > files+20 || nowInotify > inotify+4 {
			t.Errorf("after the %s the host's services hold %d open files and there are %d inotify instances; before %d and %d", what, nowFiles, nowInotify, files, inotify)
		}
		t.Logf("after the %s: %d open files of the host's services, before %d; %d inotify instances, before %d", what, nowFiles, files, nowInotify, inotify)
	}
	do(cycleScript, cycles, func(done int) int { return done })
	same("cycles")
	do(killScript, kills, func(done int) int { return seed + done })
	same("kills")
}

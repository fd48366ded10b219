package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/launch"
)

// TestHealthMachine plays sequences of checks: "+" and "-" are results, a
// number of milliseconds is time that passes. Each is followed by the state, with
// "!" where everybody is told.
func TestHealthMachine(t *testing.T) {
	for name, c := range map[string]struct {
		h    launch.Health
		play string
	}{
		"at once":           {launch.Health{}, "+healthy! 1000 +healthy"},
		"late":              {launch.Health{}, "-starting 100 -starting 200 +healthy!"},
		"never":             {launch.Health{}, "-starting 1000 -starting 1999 -starting 1 -unhealthy! 1000 -unhealthy 5000 -unhealthy -unhealthy"},
		"start period":      {launch.Health{StartPeriod: 10 * time.Second}, "-starting 12999 -starting 1 -unhealthy!"},
		"three in a row":    {launch.Health{}, "+healthy! -healthy -healthy -unhealthy!"},
		"not in a row":      {launch.Health{}, "+healthy! -healthy -healthy +healthy -healthy -healthy -unhealthy! +healthy!"},
		"recovers":          {launch.Health{Retries: 1}, "+healthy! -unhealthy! -unhealthy +healthy! -unhealthy!"},
		"acts again":        {launch.Health{Action: launch.RestartApp}, "+healthy! -healthy -healthy -unhealthy! -unhealthy -unhealthy -unhealthy!"},
		"ends a pod once":   {launch.Health{Action: launch.RestartPod, Retries: 1}, "+healthy! -unhealthy! -unhealthy -unhealthy"},
		"start and recover": {launch.Health{Retries: 1}, "1000 -unhealthy! +healthy!"},
	} {
		h := c.h
		h.Interval = time.Second
		if h.Retries == 0 {
			h.Retries = 3
		}
		now := time.Unix(1000, 0)
		m := newHealthMachine(&h, now)
		for _, step := range strings.Fields(c.play) {
			var ms int
			if n, _ := fmt.Sscanf(step, "%d", &ms); n == 1 && step[0] != '+' && step[0] != '-' {
				now = now.Add(time.Duration(ms) * time.Millisecond)
				continue
			}
			changed := m.result(now, step[0] == '+')
			got := step[:1] + m.state
			if changed {
				got += "!"
			}
			if got != step {
				t.Errorf("%s: %s, want %s in %s", name, got, step, c.play)
				break
			}
		}
	}
}

func TestHealthWaits(t *testing.T) {
	now := time.Unix(1000, 0)
	h := &launch.Health{Interval: 10 * time.Second, StartInterval: time.Second, Retries: 1}
	m := newHealthMachine(h, now)
	var got []time.Duration
	for range 6 {
		m.result(now, false)
		w := m.wait(now)
		got = append(got, w)
		now = now.Add(w)
	}
	if fmt.Sprint(got) != "[100ms 200ms 400ms 800ms 1s 1s]" {
		t.Errorf("waits of an app that starts: %v", got)
	}
	now = m.deadline().Add(-300 * time.Millisecond)
	m.result(now, false)
	if w := m.wait(now); w != 300*time.Millisecond {
		t.Errorf("the last wait is %v", w)
	}
	m.result(now, true)
	if w := m.wait(now); w != h.Interval {
		t.Errorf("a healthy app: %v", w)
	}
}

// answer answers connections with text, or never if it is empty.
func answer(t *testing.T, network, address, text string) uint16 {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if text == "" {
					time.Sleep(10 * time.Second)
					return
				}
				buf := make([]byte, 4096)
				n, _ := c.Read(buf)
				if !strings.HasPrefix(string(buf[:n]), "GET /x HTTP/1.1\r\nHost: ") {
					return
				}
				for _, part := range strings.SplitAfter(text, "~") {
					_, _ = c.Write([]byte(strings.TrimSuffix(part, "~")))
					time.Sleep(5 * time.Millisecond)
				}
			}()
		}
	}()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func TestLookNet(t *testing.T) {
	for _, c := range []struct{ answer, want, err string }{
		{"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK", ""},
		{"HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n", "HTTP/1.0 302 Found", ""},
		{"HT~TP/1.1 2~04\r~\n\r\n", "HTTP/1.1 204", ""},
		{"HTTP/1.1 404 Not Found\r\n\r\n", "", "404 Not Found"},
		{"HTTP/1.1 503 Busy\r\n\r\n" + strings.Repeat("x", 1<<20), "", "503 Busy"},
		{"HTTP/1.1 100 Continue\r\n\r\n", "", "100"},
		{"HTTP/2 200 OK\r\n", "", "not HTTP/1.1"},
		{"SSH-2.0-x\r\n", "", "not HTTP/1.1"},
		{"HTTP/1.1 200 OK", "", "not HTTP/1.1"},
		{strings.Repeat("a", 1<<20), "", "not HTTP/1.1"},
		{"HTTP/1.1 2000 OK\r\n", "", "not HTTP/1.1"},
		{"", "", "no answer in time"},
	} {
		h := &launch.Health{Port: answer(t, "tcp4", "127.0.0.1:0", c.answer), Path: "/x", Timeout: 300 * time.Millisecond}
		if c.answer != "" {
			h.Timeout = 10 * time.Second
		}
		got, err := lookNet(h)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%.40q: %q, %v", c.answer, got, err)
		}
		if err != nil && len(clipLine(err.Error())) > maxSaid+4 {
			t.Errorf("%.40q: %d bytes of message", c.answer, len(err.Error()))
		}
	}
	h := &launch.Health{Port: answer(t, "tcp6", "[::1]:0", "x"), Timeout: 10 * time.Second}
	if got, err := lookNet(h); err != nil || got != "connected" {
		t.Errorf("IPv6: %q, %v", got, err)
	}
	h = &launch.Health{Port: 1, Timeout: 10 * time.Second}
	if _, err := lookNet(h); err == nil || !strings.Contains(err.Error(), "connecting to 127.0.0.1:1: connection refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestLastLine(t *testing.T) {
	for in, want := range map[string]string{"": "", "a\nb\n\n": "b", "x\x1b[31m\x00y": "x [31m y", "\xff\xfe": "", strings.Repeat("é", 400): strings.Repeat("é", maxSaid/2) + "…"} {
		if got := lastLine([]byte(in)); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range 2000 {
			fmt.Fprintln(w, strings.Repeat("z", 1000))
		}
		fmt.Fprintln(w, "the end")
		w.Close()
	}()
	if got := tail(r); got != "the end" {
		t.Errorf("%q", got)
	}
}

func TestPodStatus(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a": `{"state":"healthy"}`, "b": `{"state":"unhealthy"}`, "c": `{"state":"healthy"}`, "d": "x", ".e.new": `{"state":"healthy"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := podStatus(dir); got != "unhealthy: b; healthy: a, c" {
		t.Error(got)
	}
}

// TestKillOrphans: what a check leaves is killed, whatever it does to get away.
// A process of the app that got hold of a check's output does not stop the prober.
func TestOutputHeldByAnother(t *testing.T) {
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	said := make(chan string, 1)
	go func() { said <- tail(out) }()
	if _, err := in.WriteString("first\nlast\n"); err != nil {
		t.Fatal(err)
	}
	if got := rest(out, said); got != "last" {
		t.Errorf("%q", got)
	}
}

func TestKillOrphans(t *testing.T) {
	if os.Getenv("RKT_TEST_ORPHANS") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKillOrphans$")
		cmd.Env = append(os.Environ(), "RKT_TEST_ORPHANS=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", `for i in 1 2 3; do setsid sh -c 'trap "" TERM HUP; sleep 600 & sleep 600' & done; exit 0`)
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	killOrphans()
	if left := children(os.Getpid()); len(left) > 0 {
		t.Errorf("%d are left", len(left))
	}
}

func FuzzJudge(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r", true)
	f.Fuzz(func(t *testing.T, line string, whole bool) {
		got, err := judge(line, whole)
		if len(got) > maxSaid+4 || err == nil && !strings.HasPrefix(got, "HTTP/1.") {
			t.Errorf("%q: %q, %v", line, got, err)
		}
	})
}

func TestFailedUnit(t *testing.T) {
	for show, want := range map[string][2]bool{"ActiveState=failed\n": {true, false}, "ActiveState=failed\nJob=\n": {true, false}, "Job=0\nActiveState=failed\n": {true, false},
		"Job=17\nActiveState=failed\n": {true, true}, "ActiveState=activating\nJob=3\n": {false, true}, "": {}} {
		if failed, job := failedUnit(show); failed != want[0] || job != want[1] {
			t.Errorf("%q: %v, %v", show, failed, job)
		}
	}
}

package network

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/rkt-systemd/rkt/internal/bounded"
)

func script(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "plug")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

const addEnv = "CNI_COMMAND=ADD"

func TestPlugin(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, c := range []struct {
		name, script, want, err, messages string
	}{
		{"result", `cat >/dev/null; echo '{"ips":[]}'`, `{"ips":[]}`, "", ""},
		{"messages", `echo one >&2; printf 'two\033[1m' >&2; echo '{}'`, "{}", "", "network plugin plug: one\nnetwork plugin plug: two?[1m\n"},
		{"error", `echo '{"code":7,"msg":"no such thing","details":"really"}'; exit 1`, "", "no such thing; really", ""},
		{"error with control characters", `printf '{"code":7,"msg":"a\\u001b[31mb\\nc"}'; exit 1`, "", "a?[31mb c", ""},
		{"error without a message", `echo '{"code":9}'; exit 1`, "", "code 9 and no message", ""},
		{"junk", `echo 'Oh dear'; exit 3`, "", `failed (exit status 3), and printed "Oh dear" instead of an error`, ""},
		{"long junk", `printf ` + long + `; exit 3`, "", `x"… (5000 bytes) instead of an error`, ""},
		{"junk and success", `echo 'all fine'`, "", `printed "all fine" instead of a result`, ""},
		{"nothing and success", `true`, "", "without an error and without a result", ""},
		{"nothing", `exit 4`, "", "failed with no error message: exit status 4", ""},
		{"crash", `kill -SEGV $$`, "", "was killed by signal 11 (segmentation fault)", ""},
		{"hang", `sleep 1000 & sleep 1000`, "", "did not end within 500ms and was killed", ""},
		{"100 MB", `head -c 100000000 /dev/zero`, "", "printed more than 1048576 bytes and was killed", ""},
		{"many messages", `yes ` + strings.Repeat("y", 100) + ` | head -c 1000000 >&2; echo '{}'`, "{}", "", "(the rest is not shown)\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var messages bytes.Buffer
			r := &runner{messages: &messages}
			ctx, cancel := bounded.Limited(t.Context(), 20*time.Second)
			if c.name == "hang" {
				ctx, cancel = bounded.Limited(t.Context(), 500*time.Millisecond)
			}
			defer cancel()
			out, err := r.ExecPlugin(ctx, script(t, c.script), []byte("{}"), []string{addEnv})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, want %q", err, c.err)
				}
				if err != nil && len(err.Error()) > 600 {
					t.Errorf("an error of %d bytes", len(err.Error()))
				}
				return
			}
			if err != nil || strings.TrimSpace(string(out)) != c.want {
				t.Errorf("%q, %v, want %q", out, err, c.want)
			}
			if !strings.HasSuffix(messages.String(), c.messages) || (c.messages == "") != (messages.Len() == 0) || messages.Len() > 1<<17 {
				t.Errorf("%d bytes of messages: %.300q, want %q", messages.Len(), messages.String(), c.messages)
			}
		})
	}
}

// TestPluginTryAgain: a plugin that is busy is asked again until the time is over.
func TestPluginTryAgain(t *testing.T) {
	count := filepath.Join(t.TempDir(), "count")
	plugin := script(t, `echo x >>`+count+`; if [ $(wc -l <`+count+`) -lt $LIMIT ]; then echo '{"code":11,"msg":"busy"}'; exit 1; fi; echo '{}'`)
	r := &runner{messages: &bytes.Buffer{}}
	if out, err := r.ExecPlugin(t.Context(), plugin, nil, []string{addEnv, "LIMIT=3"}); err != nil || strings.TrimSpace(string(out)) != "{}" {
		t.Errorf("%q, %v", out, err)
	}
	ctx, cancel := bounded.Limited(t.Context(), time.Second)
	defer cancel()
	var e *types.Error
	if _, err := r.ExecPlugin(ctx, plugin, nil, []string{addEnv, "LIMIT=1000"}); !errors.As(err, &e) || e.Msg != "busy" {
		t.Errorf("%v, want the plugin's own error", err)
	}
}

// TestPluginLeavesNothing: what a plugin started ends with it if it fails, and
// a daemon that it leaves behind when it succeeds keeps nobody waiting.
func TestPluginLeavesNothing(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	r := &runner{messages: &bytes.Buffer{}}
	ctx, cancel := bounded.Limited(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := r.ExecPlugin(ctx, script(t, `sleep 1000 & echo $! >`+pids+`; sleep 1000`), nil, []string{addEnv})
	if err == nil {
		t.Fatal("no error")
	}
	child := pidOf(t, pids)
	gone(t, child)

	start := time.Now()
	out, err := r.ExecPlugin(t.Context(), script(t, `sleep 1000 & echo $! >`+pids+`; echo '{}'`), nil, []string{addEnv})
	if err != nil || strings.TrimSpace(string(out)) != "{}" || time.Since(start) > 10*time.Second {
		t.Errorf("%q, %v after %s", out, err, time.Since(start))
	}
	daemon := pidOf(t, pids)
	if syscall.Kill(daemon, 0) != nil {
		t.Error("the daemon of a plugin that succeeded was killed")
	}
	if err := syscall.Kill(daemon, syscall.SIGKILL); err != nil {
		t.Error(err)
	}

	ctx, stop := context.WithCancelCause(t.Context())
	time.AfterFunc(300*time.Millisecond, func() { stop(errors.New("interrupted")) })
	if _, err := r.ExecPlugin(ctx, script(t, `echo $$ >`+pids+`; sleep 1000`), nil, []string{addEnv}); err == nil || err.Error() != "interrupted" {
		t.Errorf("%v", err)
	}
	gone(t, pidOf(t, pids))
}

func pidOf(t *testing.T, file string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// gone waits until a process is not there, or is only waited for.
func gone(t *testing.T, pid int) {
	t.Helper()
	for range 200 {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || bytes.Contains(b, []byte(") Z ")) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("process %d is still there", pid)
}

func TestPluginEnviron(t *testing.T) {
	got := strings.Join(bounded.Environ([]string{"RKT_LOCK_FD=3", "LISTEN_FDS=2", "LISTEN_PID=1", "LISTEN_FDNAMES=a", "NOTIFY_SOCKET=/x", "PATH=/own", "CNI_ARGS=a=b", "HOME=/root"}), " ")
	if got != "CNI_ARGS=a=b HOME=/root PATH=/own:"+bounded.ToolPath {
		t.Error(got)
	}
	if got := bounded.Environ(nil); len(got) != 1 || got[0] != "PATH="+bounded.ToolPath {
		t.Error(got)
	}
}

// TestPluginDescriptors: a plugin has standard input, output and error only.
func TestPluginDescriptors(t *testing.T) {
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := &runner{messages: &bytes.Buffer{}}
	out, err := r.ExecPlugin(t.Context(), script(t, `cd /proc/$$/fd; echo "{\"fds\":\"$(for i in *; do [ -e $i ] && echo $i=$(readlink $i); done | grep -v -e =pipe: -e ^10= | grep -v /plug$ | tr '\n' ' ')\",\"wd\":\"$(readlink ../cwd)\"}"`), nil, []string{addEnv})
	if err != nil || !strings.Contains(string(out), `"fds":""`) {
		t.Errorf("%s, %v", out, err)
	}
}

func TestFindPlugin(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	for _, name := range []string{filepath.Join(first, "a"), filepath.Join(second, "a"), filepath.Join(second, "b")} {
		if err := os.WriteFile(name, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(first, "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := &runner{}
	for name, want := range map[string]string{"a": filepath.Join(first, "a"), "b": filepath.Join(second, "b"), natType: natType} {
		if got, err := r.FindInPath(name, []string{first, second}); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	for name, want := range map[string]string{"": "not a plugin name", "../a": "not a plugin name", "absent": "containernetworking-plugins"} {
		if _, err := r.FindInPath(name, []string{first, second}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
	dirs := PluginDirs("/etc/rkt", "/opt/more")
	if dirs[0] != "/etc/rkt/net.d" || dirs[1] != "/usr/lib/rkt/plugins/net" || dirs[2] != "/opt/more" || dirs[3] != "/usr/lib/cni" {
		t.Error(dirs)
	}
}

func TestPluginPackage(t *testing.T) {
	for release, want := range map[string]string{
		"ID=debian\n": "apt install containernetworking-plugins",
		"ID_LIKE=\"ubuntu debian\"\nID=linuxmint\n":      "apt install containernetworking-plugins",
		"ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n": "dnf install containernetworking-plugins",
		"ID=arch\n": "pacman -S cni-plugins",
		"ID=opensuse-tumbleweed\nID_LIKE=\"opensuse suse\"\n": "zypper install cni-plugins",
		"": "in the package containernetworking-plugins or cni-plugins",
	} {
		if got := pluginPackage(release); !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", release, got, want)
		}
	}
}

package journal

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sirupsen/logrus"
)

func TestFieldNames(t *testing.T) {
	for key, want := range map[string]string{
		"pod": "RKT_POD_NAME", "uuid": "RKT_POD_UUID", "app": "RKT_APP", "image_id": "RKT_IMAGE_ID", "error": "RKT_ERROR",
		"some-key": "RKT_SOME_KEY", "a b": "", "ü": "", strings.Repeat("a", 61): "",
	} {
		if got := FieldName(key); got != want {
			t.Errorf("FieldName(%q) = %q, want %q", key, got, want)
		}
	}
	for _, bad := range []string{"", "_PID", "1A", "a", "A=B", "A\nB", strings.Repeat("A", 65)} {
		if ValidField(bad) {
			t.Errorf("ValidField(%q)", bad)
		}
	}
}

// fakeJournal listens like journald and returns what one datagram or memfd
// held.
func fakeJournal(t *testing.T) (path string, receive func() string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return path, func() string {
		buf, oob := make([]byte, 1<<20), make([]byte, 128)
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, on, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil {
			t.Fatal(err)
		}
		if on == 0 {
			return string(buf[:n])
		}
		msgs, err := syscall.ParseSocketControlMessage(oob[:on])
		if err != nil {
			t.Fatal(err)
		}
		fds, err := syscall.ParseUnixRights(&msgs[0])
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fds[0]), "memfd")
		defer f.Close()
		if _, err := f.WriteAt([]byte("x"), 0); err == nil {
			t.Error("the memfd is not sealed")
		}
		b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

func TestHook(t *testing.T) {
	path, receive := fakeJournal(t)
	w, err := NewWriter(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	log := logrus.New()
	log.SetOutput(io.Discard)
	log.AddHook(NewHook(w, "rkt"))

	log.WithFields(logrus.Fields{KeyPodName: "web", KeyApp: "nginx", "bad key": 1}).Warn("careful")
	want := "MESSAGE=careful \"bad key\"=\"1\"\nPRIORITY=4\nSYSLOG_IDENTIFIER=rkt\nRKT_APP=nginx\nRKT_POD_NAME=web\n"
	if d := cmp.Diff(want, receive()); d != "" {
		t.Error(d)
	}
	log.WithError(errors.New("no space")).Error("two\nlines")
	text := "two\nlines: no space"
	want = "MESSAGE\n" + string(binary.LittleEndian.AppendUint64(nil, uint64(len(text)))) + text +
		"\nPRIORITY=3\nSYSLOG_IDENTIFIER=rkt\nRKT_ERROR=no space\n"
	if d := cmp.Diff(want, receive()); d != "" {
		t.Error(d)
	}
	large := strings.Repeat("x", 4<<20)
	log.Info(large)
	if got := receive(); !strings.HasPrefix(got, "MESSAGE="+large+"\nPRIORITY=6\n") {
		t.Errorf("large message came as %d bytes: %.40q", len(got), got)
	}
	if err := w.Send([]Field{{"_PID", []byte("1")}}); err == nil {
		t.Error("a trusted field was accepted")
	}
}

func TestIsJournal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, _ := f.Stat()
	st := fi.Sys().(*syscall.Stat_t)
	for value, want := range map[string]bool{fmt.Sprintf("%d:%d", st.Dev, st.Ino): true, fmt.Sprintf("%d:1", st.Dev): false, "": false, "x": false} {
		if got := isJournal(f, value); got != want {
			t.Errorf("isJournal(%q) = %v, want %v", value, got, want)
		}
	}
}

// export builds an entry as journalctl writes it.
func export(fields ...string) string {
	var b strings.Builder
	for i := 0; i+1 < len(fields); i += 2 {
		if strings.ContainsAny(fields[i+1], "\n\x01") {
			b.WriteString(fields[i] + "\n" + string(binary.LittleEndian.AppendUint64(nil, uint64(len(fields[i+1])))) + fields[i+1] + "\n")
		} else {
			b.WriteString(fields[i] + "=" + fields[i+1] + "\n")
		}
	}
	return b.String() + "\n"
}

func TestReadEntry(t *testing.T) {
	in := export("__CURSOR", "s=1;i=2", "__REALTIME_TIMESTAMP", "1700000000000001", "__MONOTONIC_TIMESTAMP", "5", "_PID", "42",
		"SYSLOG_IDENTIFIER", "nginx", "MESSAGE", "a\nb\x1b[31m=c", "PRIORITY", "3") +
		"\n\n" + export("MESSAGE", "second", "A", "1", "A", "2") +
		export("MESSAGE", strings.Repeat("y", maxValue+10)) + export("MESSAGE", "\n"+strings.Repeat("z", maxValue+10)) + "MESSAGE=cut off"
	r := bufio.NewReader(strings.NewReader(in))
	e, err := ReadEntry(r)
	if err != nil {
		t.Fatal(err)
	}
	if e.Cursor != "s=1;i=2" || e.Realtime.UnixMicro() != 1700000000000001 || e.Monotonic != 5*time.Microsecond || e.PID() != 42 ||
		e.App() != "nginx" || e.Priority() != 3 {
		t.Errorf("entry %+v", e)
	}
	t.Setenv("TZ", "UTC")
	want := e.Realtime.Local().Format("[2006-01-02T15:04:05.000000Z07:00] ") + "nginx[42]: a\n"
	want += strings.Repeat(" ", len(want)-2) + "b?[31m=c"
	if got := e.Short(); got != want {
		t.Errorf("Short() = %q, want %q", got, want)
	}
	if e, err = ReadEntry(r); err != nil || e.Message() != "second" || len(e.Fields) != 3 || e.Value("A") != "1" || e.Priority() != 6 {
		t.Errorf("entry %+v, %v", e, err)
	}
	for range 2 {
		if e, err = ReadEntry(r); err != nil || len(e.Message()) < maxValue-100 || len(e.Message()) > maxValue {
			t.Errorf("long entry of %d bytes, %v", len(e.Message()), err)
		}
	}
	if e, err = ReadEntry(r); err != io.EOF {
		t.Errorf("entry %+v, %v, want EOF", e, err)
	}
	for _, bad := range []string{"bad name=1\n\n", "=\n\n", "__REALTIME_TIMESTAMP=x\n\n", "A\n\xff\xff\xff\xff\xff\xff\xff\xff", "A\n\x01\x00\x00\x00\x00\x00\x00\x00xy"} {
		if _, err := ReadEntry(bufio.NewReader(strings.NewReader(bad))); !errors.Is(err, errFormat) {
			t.Errorf("ReadEntry(%q): %v", bad, err)
		}
	}
}

func TestMatches(t *testing.T) {
	const uuid = "8d3fffdd-f79e-4a23-8ffd-19f9ccaa4d6b"
	if d := cmp.Diff([]string{"_SYSTEMD_INVOCATION_ID=8d3fffddf79e4a238ffd19f9ccaa4d6b", "SYSLOG_IDENTIFIER=a", "SYSLOG_IDENTIFIER=b"},
		PodMatches(uuid, "", "a", "b")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"_SYSTEMD_UNIT=machine-x.scope"}, PodMatches(uuid, "machine-x.scope")); d != "" {
		t.Error(d)
	}
	q := Query{Matches: []string{"A=b"}, Lines: 3, Follow: true, Since: time.UnixMicro(1500000), After: "c", Directory: "/d"}
	got, err := q.args()
	want := []string{"--output=export", "--no-pager", "--quiet", "--all", "--directory=/d", "--lines=3", "--since=@1.500000", "--after-cursor=c", "--follow", "--", "A=b"}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	for _, bad := range []string{"", "x", "a=b", "--x=y", "A\n=b", "+"} {
		if _, err := (&Query{Matches: []string{bad}}).args(); err == nil {
			t.Errorf("match %q accepted", bad)
		}
	}
}

// script stands in for journalctl.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journalctl")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReader(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	log := filepath.Join(t.TempDir(), "log")
	prog := script(t, `echo "$@" >>`+log+"\n[ \"$1\" = --sync ] && exit\nprintf 'MESSAGE=one\\n\\nMESSAGE=two\\n\\n'\n")
	r, err := Read(ctx, Query{Journalctl: prog, Sync: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "two"} {
		if e, err := r.Next(); err != nil || e.Message() != want {
			t.Errorf("Next() = %q, %v, want %q", e.Message(), err, want)
		}
	}
	for range 2 {
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("Next() = %v, want EOF", err)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(log); !strings.HasPrefix(string(b), "--sync\n--output=export ") {
		t.Errorf("called as %q", b)
	}

	r, err = Read(ctx, Query{Journalctl: script(t, "echo No journal files were opened >&2; exit 1\n")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err == nil || !strings.Contains(err.Error(), "No journal files were opened") {
		t.Errorf("Next() = %v", err)
	}

	// Following ends with the context, without an error.
	fctx, stop := context.WithCancel(ctx)
	r, err = Read(fctx, Query{Follow: true, Journalctl: script(t, "printf 'MESSAGE=one\\n\\n'; exec sleep 100\n")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != nil {
		t.Error(err)
	}
	stop()
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("Next() after the end = %v, want EOF", err)
	}
	if _, err := Read(ctx, Query{Journalctl: "/nowhere/journalctl"}); err == nil {
		t.Error("a missing journalctl went unnoticed")
	}
}

func FuzzReadEntry(f *testing.F) {
	f.Add([]byte(export("__REALTIME_TIMESTAMP", "1", "MESSAGE", "a\nb")))
	f.Add([]byte("A=\n\nB\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReader(bytes.NewReader(data))
		for {
			e, err := ReadEntry(r)
			if err != nil {
				if err != io.EOF && !errors.Is(err, errFormat) {
					t.Fatal(err)
				}
				return
			}
			for _, l := range strings.Split(e.Short(), "\n")[0] {
				if l == 0x1b || l == 0 {
					t.Fatalf("Short() = %q", e.Short())
				}
			}
		}
	})
}

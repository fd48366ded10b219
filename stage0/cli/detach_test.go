package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/units"
)

func TestAttachedCommandLine(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"run --detach img", "run img"},
		{"--dir=/d run --unit web --property A=b --property=C=d --detach=true img --exec /x", "--dir=/d run img --exec /x"},
		{"run --detach a -- --detach --unit x --- b --unit=y -- --property z", "run a -- --detach --unit x --- b -- --property z"},
	} {
		if diff := cmp.Diff(strings.Fields(c.want), attached(strings.Fields(c.in))); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.in, diff)
		}
	}
}

func TestEncodedWords(t *testing.T) {
	for _, words := range [][]string{{"run", "a b", "%3B"}, {"run", "echo; echo %3B %25;", "%"}, nil} {
		enc := encodeWords(words)
		if strings.ContainsAny(strings.Join(enc, ""), ";$\\\"'\n") {
			t.Errorf("%q", enc)
		}
		if diff := cmp.Diff(words, decodeWords(enc)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestDetachOptions(t *testing.T) {
	for _, c := range []struct {
		o    detachOptions
		so   startOptions
		po   podOptions
		want string
	}{
		{o: detachOptions{detach: true}},
		{o: detachOptions{unit: "x"}, want: "need --detach"},
		{o: detachOptions{properties: []string{"A=b"}}, want: "need --detach"},
		{o: detachOptions{detach: true}, so: startOptions{interactive: true}, want: "--interactive"},
		{o: detachOptions{detach: true}, po: podOptions{inheritEnv: true}, want: "--set-env"},
		{o: detachOptions{detach: true, unit: "a b"}, want: "no name of a service"},
		{o: detachOptions{detach: true, unit: "rkt@web"}, want: "declared pod"},
		{o: detachOptions{detach: true, properties: []string{"MemoryMax"}}, want: "KEY=VALUE"},
		{o: detachOptions{detach: true, properties: []string{"KillMode=process"}}, want: "shut its apps down"},
	} {
		err := c.o.check(&c.po, &c.so)
		if err == nil {
			_, err = c.o.name()
		}
		if err == nil {
			_, err = c.o.settings()
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
}

// What a transient unit gets is what rkt@.service has, but for what names the pod.
func TestTransientContract(t *testing.T) {
	have := map[string]bool{}
	for _, s := range units.Pod() {
		have[s.Key+"="+s.Value] = true
		if strings.HasPrefix(s.Key, "Exec") || s.Key == "LogExtraFields" {
			t.Errorf("%s=%s", s.Key, s.Value)
		}
	}
	for _, want := range []string{"Type=notify", "NotifyAccess=main", "KillMode=mixed", "Delegate=yes", "Slice=machine.slice", "TimeoutStopSec=100s",
		"DeviceAllow=char-pts rw", "DevicePolicy=closed", "After=network.target", "OOMPolicy=continue", "RestartForceExitStatus=133"} {
		if !have[want] {
			t.Errorf("%s is not among %v", want, have)
		}
	}
}

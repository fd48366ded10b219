package plan

import (
	"github.com/appc/spec/schema"
	"slices"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

func TestCheckIDs(t *testing.T) {
	r := abi.IDRange{Shift: 0x70000000, Count: 65536}
	for _, c := range []struct {
		spec launch.Spec
		err  string
	}{
		{launch.Spec{UID: 65535, GID: 65535, Groups: []uint32{0, 65535}}, ""},
		{launch.Spec{UID: 65536}, "user 65536"},
		{launch.Spec{GID: 1 << 31}, "group 2147483648"},
		{launch.Spec{Groups: []uint32{1, 70000}}, "group 70000"},
	} {
		err := checkIDs(r, &c.spec)
		if (c.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%+v: %v, want %q", c.spec, err, c.err)
		}
		if err := checkIDs(abi.IDRange{}, &c.spec); err != nil {
			t.Errorf("%+v without private users: %v", c.spec, err)
		}
	}
}

// With private users nspawn gets the range, every app a stream to the journal.
func TestPrivateUsersPlan(t *testing.T) {
	p := &Plan{Apps: []launch.Spec{{Name: "a", LogUnit: "x.service"}, {Name: "b", LogUnit: "x.service"}}}
	in := Input{Pod: &schema.PodManifest{}, Run: abi.Run{UUID: "6f1c2b3a-0d4e-4c5b-8a7f-1e2d3c4b5a69"}, Facts: Facts{Nspawn: "/n", LdSoCache: true, IDs: abi.IDRange{Shift: 1879048192, Count: 65536}}}
	if err := p.logs(in); err != nil {
		t.Fatal(err)
	}
	p.adopt()
	p.nspawn(in)
	for _, want := range []string{"--private-users=1879048192:65536", "--private-users-ownership=off", "--tmpfs=/run/systemd"} {
		if !slices.Contains(p.Args, want) {
			t.Errorf("%s is not in %q", want, p.Args)
		}
	}
	if want := []Log{{"a", "x.service", "@rkt-log/" + in.Run.UUID + "/a", "/run/systemd/journal"}, {"b", "x.service", "@rkt-log/" + in.Run.UUID + "/b", "/run/systemd/journal"}}; !slices.Equal(p.Logs, want) {
		t.Errorf("logs are %v, want %v", p.Logs, want)
	}
	files := map[string]string{}
	for _, f := range p.Files {
		files[f.Path] = string(f.Data)
	}
	if s := files["rkt/units/log@b.socket"]; !strings.Contains(s, "ListenDatagram=@rkt-log/"+in.Run.UUID+"/b\n") {
		t.Errorf("the socket is %q", s)
	}
	if s := files["rkt/units/-.slice.d/10-rkt.conf"]; !strings.Contains(s, "log@a.socket") || !strings.Contains(s, "log@b.socket") {
		t.Errorf("the drop-in of the slice is %q", s)
	}
	if _, ok := files["etc/ld.so.cache"]; !ok {
		t.Error("nothing for nspawn to mount the host's ld.so.cache on")
	}
	without := &Plan{Apps: p.Apps}
	in.Facts.IDs = abi.IDRange{}
	if err := without.logs(in); err != nil || len(without.Logs)+len(without.Files) > 0 {
		t.Errorf("without private users: %v, %v", without.Logs, err)
	}
}

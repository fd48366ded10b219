package abi

import (
	"net"
	"testing"

	"github.com/appc/spec/schema/types"
	"github.com/google/go-cmp/cmp"
)

func TestActivatedPorts(t *testing.T) {
	want := []types.ExposedPort{{Name: "http", HostPort: 8080, PodPort: &types.Port{Name: "http", Protocol: "tcp", Port: 80, Count: 1}},
		{Name: "six", HostPort: 81, HostIP: net.ParseIP("fd00::1"), PodPort: &types.Port{Name: "six", Protocol: "tcp", Port: 81, Count: 1}}}
	text, err := FormatActivatedPorts(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseActivatedPorts(text)
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(err, d)
	}
	if got, err := ParseActivatedPorts(""); got != nil || err != nil {
		t.Error(got, err)
	}
	for _, bad := range []string{"x", "{}", `[{"name":"a","hostPort":1}]`, `[{"name":"a","hostPort":0,"podPort":{"name":"a","protocol":"tcp","port":1}}]`,
		`[{"name":"a","hostPort":1,"podPort":{"name":"a","protocol":"tcp","port":70000}}]`} {
		if got, err := ParseActivatedPorts(bad); err == nil {
			t.Errorf("%s: %v", bad, got)
		}
	}
}

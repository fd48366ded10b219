package cli

import "testing"

func TestParseMapping(t *testing.T) {
	p, err := parseMapping("web:tcp:80:127.0.0.1:8080")
	if err != nil || p.Name != "web" || p.HostPort != 8080 || p.HostIP.String() != "127.0.0.1" || p.PodPort.Port != 80 || p.PodPort.Protocol != "tcp" {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err = parseMapping("dns:udp:53:::1:5353"); err != nil || p.HostIP.String() != "::1" {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []string{"", "web:80", "web:tcp:80:8080", "web:sctp:80:127.0.0.1:8080", "web:tcp:0:127.0.0.1:80", "web:tcp:80:host:80", "web:tcp:80:127.0.0.1:70000", "We b:tcp:80:127.0.0.1:80"} {
		if p, err := parseMapping(bad); err == nil {
			t.Errorf("%q: %+v, want an error", bad, p)
		}
	}
}

func TestParseMntVolume(t *testing.T) {
	m, owner, err := parseMntVolume("name=data,kind=host,source=/srv,target=/data,readOnly=true,owner=app")
	if err != nil || m.Volume != "data" || m.Path != "/data" || m.AppVolume.Source != "/srv" || !*m.AppVolume.ReadOnly || owner != "app" {
		t.Errorf("%+v, %q, %v", m, owner, err)
	}
	for _, bad := range []string{"", "name=a", "target=/x,kind=empty", "name=a,name=b,target=/x,kind=empty", "name=a,target=/x,target=/y,kind=empty",
		"name=a,target=/x,kind=what", "name=a,target=/x,kind=host,source=relative"} {
		if m, _, err := parseMntVolume(bad); err == nil {
			t.Errorf("%q: %+v, want an error", bad, m)
		}
	}
}

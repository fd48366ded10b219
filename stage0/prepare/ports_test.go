package prepare

import (
	"net"
	"strings"
	"testing"

	"github.com/appc/spec/schema/types"
	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/abi"
)

const portsApp = `{"exec":["/x"],"user":"0","group":"0","ports":[{"name":"http","protocol":"tcp","port":80,"count":1},
	{"name":"dns","protocol":"udp","port":53,"count":1},{"name":"taken","protocol":"tcp","port":81,"count":1,"socketActivated":true}]}`

func TestLayPorts(t *testing.T) {
	on, off := true, false
	base := []types.Port{{Name: "http", Protocol: "tcp", Port: 80, Count: 2, SocketActivated: true}, {Name: "q", Protocol: "udp", Port: 5, Count: 1}}
	got, err := layPorts(base, []AppPort{{Name: "http", Port: 8080, SocketActivated: &off}, {Name: "q", Protocol: "tcp", SocketActivated: &on}, {Name: "new", Port: 7}})
	want := []types.Port{{Name: "http", Protocol: "tcp", Port: 8080, Count: 2}, {Name: "q", Protocol: "tcp", Port: 5, Count: 1, SocketActivated: true}, {Name: "new", Protocol: "tcp", Port: 7, Count: 1}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(err, d)
	}
	if base[0].Port != 80 {
		t.Error("the image's ports were changed")
	}
	if _, err := layPorts(base, []AppPort{{Name: "htpt", SocketActivated: &on}}); err == nil || !strings.Contains(err.Error(), `the image has no port of this name; say its "port"`) {
		t.Error(err)
	}
}

func TestActivatedPorts(t *testing.T) {
	one := func(e types.ExposedPort, more ...types.ExposedPort) *PodSpec {
		return &PodSpec{Apps: []AppSpec{{Name: "a"}}, Ports: more, Activated: []types.ExposedPort{e}}
	}
	host := one(types.ExposedPort{Name: "http", HostPort: 80})
	host.HostNetwork = true
	otherHost := one(types.ExposedPort{Name: "http", HostPort: 8080})
	otherHost.HostNetwork = true
	at := func(ip string) types.ExposedPort {
		return types.ExposedPort{Name: "http", HostPort: 8080, HostIP: net.ParseIP(ip)}
	}
	for _, c := range []struct {
		name string
		spec *PodSpec
		want string // of the error; empty for none
	}{
		{"by name", one(at("")), ""}, {"host's network, another number", otherHost, ""},
		{"its own mapping", one(types.ExposedPort{Name: "x", HostPort: 8080, PodPort: &types.Port{Name: "x", Protocol: "tcp", Port: 9, Count: 1}}), ""},
		{"udp", one(types.ExposedPort{Name: "dns", HostPort: 53}), "is for tcp only, not for udp"},
		{"takes sockets", one(types.ExposedPort{Name: "taken", HostPort: 81}), "takes sockets from systemd"},
		{"unknown", one(types.ExposedPort{Name: "nope", HostPort: 81}), `port name "nope" could not be found in any apps`},
		{"host's network, the same number", host, `the app itself listens on 80`},
		{"forwarded, too", one(at(""), at("127.0.0.1")), `8080 of the host is forwarded to port "http" already`},
		{"forwarded at another address", one(at("127.0.0.2"), at("127.0.0.1")), ""},
		{"forwarded, udp", one(at(""), types.ExposedPort{Name: "dns", HostPort: 8080}), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := make1(t, c.spec, testImage(t, "example.com/my-app", portsApp))
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			text, _ := m.Annotations.Get(abi.AnnotationActivatedPorts)
			ports, err := abi.ParseActivatedPorts(text)
			if err != nil || len(ports) != 1 || ports[0].PodPort == nil || ports[0].PodPort.Port == 0 || len(m.Ports) != len(c.spec.Ports) {
				t.Errorf("the manifest's annotation %q, ports %v, %v", text, m.Ports, err)
			}
		})
	}
}

package plan

import (
	"strings"
	"testing"
)

// A socket that is passed and that no app takes is told of: whoever connects
// to it waits for ever.
func TestUnclaimedSockets(t *testing.T) {
	const app = `,"app":{"exec":["/a"],"user":"0","group":"0","ports":[{"name":"http","protocol":"tcp","port":80,"count":1,"socketActivated":true}]}`
	in := one(t, app, `,"ports":[{"name":"http","hostPort":8080}]`)
	in.Facts.Listeners = []Listener{{"tcp", "0.0.0.0:8080", 8080}, {"tcp", "[::]:8080", 8080}}
	p, err := Make(in)
	if err != nil || len(p.Warnings) > 0 {
		t.Fatalf("%v, warnings %q", err, p.Warnings)
	}
	in.Facts.Listeners = append(in.Facts.Listeners, Listener{"tcp", "[::]:80", 80}, Listener{"udp", "0.0.0.0:8080", 8080})
	if p, err = Make(in); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(p.Warnings, "\n")
	if len(p.Warnings) != 2 || !strings.Contains(got, "nobody takes the socket [::]:80/tcp") || !strings.Contains(got, "nobody takes the socket 0.0.0.0:8080/udp") {
		t.Errorf("warnings: %s", got)
	}
}

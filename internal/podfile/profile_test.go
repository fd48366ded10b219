package podfile

import (
	"strings"
	"testing"
)

func TestProfiles(t *testing.T) {
	parse := func(rkt, app, more string) (*Pod, []Problem) {
		return Parse("web", []File{{Path: "web.json", Data: []byte(`{"apps":[{"image":"a"` + app + `}],"rkt":{` + rkt + `}` + more + `}`)}})
	}
	for _, c := range []struct{ rkt, app, more, net, want, lack, problem string }{
		{rkt: ``, want: "", lack: "isolator"},
		{rkt: `"profile":"default"`, lack: "os/"},
		{rkt: `"profile":"strict"`, net: "none", want: "readonly no-new-privileges CAP_NET_BIND_SERVICE @rkt/default-whitelist"},
		{rkt: `"profile":"strict","net":"default"`, net: "default", want: "no-new-privileges"},
		{rkt: `"profile":"strict"`, more: `,"ports":["http:80"]`, net: "default-restricted"},
		{rkt: `"profile":"strict"`, app: `,"readOnlyRootFS":false,"isolators":[{"name":"os/linux/capabilities-remove-set","value":{"set":["CAP_KILL"]}},{"name":"os/linux/seccomp-remove-set","value":{"set":["mount"]}}]`,
			net: "none", want: "CAP_KILL no-new-privileges mount", lack: "readonly CAP_NET_BIND_SERVICE whitelist"},
		{rkt: `"profile":"trusted"`, want: "users=false CAP_SYS_ADMIN @appc.io/all", lack: "readonly no-new"},
		{rkt: `"profile":"trusted","privateUsers":true`, want: "users=true"},
		{rkt: `"profile":"nonetwork"`, net: "none", lack: "CAP_"},
		{rkt: `"profile":"nonetwork","net":"default"`, net: "default", problem: `warning web.json: rkt.profile: is nonetwork, but "net" gives a network`},
		{rkt: `"profile":"nonetwork"`, more: `,"ports":["http:80"]`, problem: "error web.json: rkt.profile: nonetwork has no network"},
		{rkt: `"profile":"srict"`, problem: `error web.json: rkt.profile: is "srict", want default, strict, trusted, nonetwork (did you mean "strict"?)`},
	} {
		name := c.rkt + c.app + c.more
		pod, problems := parse(c.rkt, c.app, c.more)
		var said []string
		for _, p := range problems {
			p.Line = 0
			said = append(said, p.Severity.String()+" "+p.Error())
		}
		if text := strings.Join(said, "\n"); (c.problem == "") != (text == "") || !strings.Contains(text, c.problem) {
			t.Errorf("%s: problems %q, want %q", name, text, c.problem)
		}
		if pod == nil {
			continue
		}
		got := string(pod.Apps[0].Override.Isolators)
		if pod.Apps[0].ReadOnlyRootFS {
			got += " readonly"
		}
		if u := pod.Rkt.PrivateUsers; u != nil {
			got += map[bool]string{true: " users=true", false: " users=false"}[*u]
		}
		for w := range strings.FieldsSeq(c.want) {
			if !strings.Contains(got, w) {
				t.Errorf("%s: %s lacks %s", name, got, w)
			}
		}
		for w := range strings.FieldsSeq(c.lack) {
			if strings.Contains(got, w) {
				t.Errorf("%s: %s has %s", name, got, w)
			}
		}
		if net := strings.Join(pod.Rkt.Net, " "); net != c.net {
			t.Errorf("%s: net %q, want %q", name, net, c.net)
		}
	}
}

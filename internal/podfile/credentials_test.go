package podfile

import (
	"reflect"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/internal/appcred"
)

func TestCredentials(t *testing.T) {
	p, ps := parse("web@x", `{"apps": [{"image": "example.com/a", "credentials": ["db", {"name": "key", "file": "/run/secrets/key", "env": "KEY_FILE"}]}, {"image": "example.com/b"}],
		"rkt": {"credentials": {"db": {"load": "/etc/%i/db"}, "key": {"set": "100%z"}, "tok": {"encrypted": "aGVs\n bG8="}}}}`)
	if Failed(ps) {
		t.Fatal(lines(ps))
	}
	if want := []appcred.Credential{{Name: "db"}, {Name: "key", File: "/run/secrets/key", Env: "KEY_FILE"}}; !reflect.DeepEqual(p.Apps[0].Credentials, want) {
		t.Errorf("%+v", p.Apps[0].Credentials)
	}
	if p.Apps[1].Credentials != nil {
		t.Errorf("an app that names none: %+v", p.Apps[1].Credentials)
	}
	c := p.Rkt.Credentials
	// a secret is taken as it is, also in a template
	if len(c) != 3 || c[0].Load != "/etc/x/db" || !c[1].HasSet || c[1].Set != "100%z" || c[2].Encrypted != "aGVsbG8=" {
		t.Errorf("%+v", c)
	}
	if !strings.Contains(lines(ps), "rkt.credentials.tok: no app gets this credential") {
		t.Errorf("warnings: %s", lines(ps))
	}
}

func TestCredentialProblems(t *testing.T) {
	for _, c := range []struct{ app, pod, want string }{
		{`["dbb"]`, `{"db": {"load": "/x"}}`, `1:40: apps[0].credentials[0]: no credential "dbb" in rkt.credentials (did you mean "db"?)`},
		{`[{"name": "dbb"}]`, `{"db": {"load": "/x"}}`, `no credential "dbb"`},
		{`["db"]`, `{}`, `no credential "db"`},
		{`["db", "db"]`, `{"db": {"load": "/x"}}`, `"db" is given twice`},
		{`[{"name": "db", "file": "x"}]`, `{"db": {"load": "/x"}}`, `no absolute path`},
		{`[{"name": "db", "env": "A-B"}]`, `{"db": {"load": "/x"}}`, `no name of a variable`},
		{`[3]`, `{"db": {"load": "/x"}}`, `apps[0].credentials[0]: is a number`},
		{`[]`, `{"db": {"load": "x"}}`, `no absolute path`},
		{`[]`, `{"db": {"load": "/x", "set": "s3cr3t"}}`, `wants one of`},
		{`[]`, `{"db": {}}`, `wants one of`},
		{`[]`, `{"../db": {"load": "/x"}}`, `no name of a credential`},
		{`[]`, `{"db": {"encrypted": "s3cr3t!"}}`, `neither an absolute path nor`},
		{`[]`, `{"db": {"set": ["s3cr3t"]}}`, `is a list, want a string`},
		{`[]`, `{"db": {"set": "s3cr3t\u0000"}}`, `NUL`},
	} {
		_, ps := parse("web", `{"apps": [{"image":"e", "credentials":`+c.app+`}], "rkt": {"credentials": `+c.pod+`}}`)
		if !Failed(ps) || !strings.Contains(lines(ps), c.want) {
			t.Errorf("%s %s: %s", c.app, c.pod, lines(ps))
		}
		if strings.Contains(lines(ps), "s3cr3t") {
			t.Errorf("%s: a message repeats the secret: %s", c.pod, lines(ps))
		}
	}
}

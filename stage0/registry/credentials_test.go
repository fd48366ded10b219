package registry

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/stage0/config"
)

// check list: 64
func TestAuthFilePlaces(t *testing.T) {
	env := func(m map[string]string) func(string) string { return func(k string) string { return m[k] } }
	for _, tt := range []struct {
		env  map[string]string
		want []string
	}{
		{map[string]string{"REGISTRY_AUTH_FILE": "/f", "HOME": "/h"}, []string{"/f"}},
		{map[string]string{"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/h"}, []string{
			"/run/user/7/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json", "/h/.dockercfg"}},
		{map[string]string{"XDG_CONFIG_HOME": "/c", "HOME": "/h", "DOCKER_CONFIG": "/d"}, []string{
			"/run/containers/7/auth.json", "/c/containers/auth.json", "/d/config.json", "/h/.dockercfg"}},
		{nil, []string{"/run/containers/7/auth.json"}},
	} {
		if got := AuthFiles(env(tt.env), 7); !slices.Equal(got, tt.want) {
			t.Errorf("%v: %q, want %q", tt.env, got, tt.want)
		}
	}
}

// check list: 64
func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	t.Setenv("CREDS_LOG", filepath.Join(dir, "log"))
	for name, script := range map[string]string{
		"good":    `read s; echo "{\"ServerURL\":\"$s\",\"Username\":\"helper\",\"Secret\":\"$s\"}"`,
		"token":   `echo '{"Username":"<token>","Secret":"identity"}'`,
		"none":    `echo "credentials not found in native keychain"; exit 1`,
		"broken":  `echo "no D-Bus"; exit 1`,
		"junk":    `echo junk`,
		"endless": `exec cat /dev/zero`,
		"hang":    `sleep 60`,
	} {
		writeFile(t, filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script+"\n"))
	}
	auth := func(user string) string { // base64 by hand of a test is no fun
		return fmt.Sprintf(`{"username":%q,"password":"p"}`, user)
	}
	for _, tt := range []struct {
		name, file, host, repo, want, note string
	}{
		{"base64", `{"auths":{"a.com":{"auth":"dTpwOnE="}}}`, "a.com", "x", "u:p:q", ""},
		{"base64 with NULs", `{"auths":{"a.com":{"auth":"dTpwAAA="}}}`, "a.com", "x", "u:p", ""},
		{"host with port", `{"auths":{"a.com":` + auth("u") + `}}`, "a.com:5000", "x", "", ""},
		{"sub-domain", `{"auths":{"a.com":` + auth("u") + `}}`, "b.a.com", "x", "", ""},
		{"longest", `{"auths":{"a.com":` + auth("u") + `,"a.com/n":` + auth("v") + `,"a.com/n/r":` + auth("w") + `}}`, "a.com", "n/r", "w:p", ""},
		{"longest by components", `{"auths":{"a.com":` + auth("u") + `,"a.com/n":` + auth("v") + `}}`, "a.com", "nn/r", "u:p", ""},
		{"URL", `{"auths":{"https://a.com":` + auth("u") + `}}`, "a.com", "x", "u:p", ""},
		{"URL with version", `{"auths":{"https://a.com/v2/":` + auth("u") + `}}`, "a.com", "x", "u:p", ""},
		{"host with version", `{"auths":{"a.com/v1/":` + auth("u") + `}}`, "a.com", "x", "u:p", ""},
		{"hub by URL", `{"auths":{"https://index.docker.io/v1/":` + auth("u") + `}}`, config.HubHost, "library/x", "u:p", ""},
		{"hub by name", `{"auths":{"docker.io":` + auth("u") + `}}`, config.HubHost, "library/x", "u:p", ""},
		{"hub by name and namespace", `{"auths":{"docker.io":` + auth("u") + `,"docker.io/n":` + auth("v") + `}}`, config.HubHost, "n/x", "v:p", ""},
		{"two spellings", `{"auths":{"https://a.com":` + auth("v") + `,"a.com":` + auth("u") + `}}`, "a.com", "x", "u:p", ""},
		{"identity token", `{"auths":{"a.com":{"auth":"dTpw","identitytoken":"i"}}}`, "a.com", "x", "u:p identity i", ""},
		{"registry token", `{"auths":{"a.com":{"registrytoken":"b"}}}`, "a.com", "x", ": bearer b", ""},
		{"registry token with newline", `{"auths":{"a.com":{"registrytoken":"b\nc"}}}`, "a.com", "x", "", "cannot have"},
		{"not base64", `{"auths":{"a.com":{"auth":"!"}}}`, "a.com", "x", "", "not base64"},
		{"no colon", `{"auths":{"a.com":{"auth":"dQ=="}}}`, "a.com", "x", "", "USER:PASSWORD"},
		{"broken elsewhere", `{"auths":{"a.com":{"auth":"!"},"b.com":` + auth("u") + `}}`, "b.com", "x", "u:p", ""},
		{"not JSON", `{`, "a.com", "x", "", "unexpected end"},
		{"helper of the host", `{"credHelpers":{"a.com":"good"},"auths":{"a.com":` + auth("u") + `}}`, "a.com", "x", "helper:a.com", ""},
		{"helper of another", `{"credHelpers":{"b.com":"good"}}`, "a.com", "x", "", ""},
		{"helper for all", `{"credsStore":"good"}`, "a.com:5000", "x", "helper:a.com:5000", ""},
		{"helper for all, hub", `{"credsStore":"good"}`, config.HubHost, "x", "helper:https://index.docker.io/v1/", ""},
		{"helper without login", `{"credsStore":"none","auths":{"a.com":` + auth("u") + `}}`, "a.com", "x", "u:p", ""},
		{"helper with a token", `{"credsStore":"token"}`, "a.com", "x", ": identity identity", ""},
		{"broken helper", `{"credsStore":"broken","auths":{"a.com":` + auth("u") + `}}`, "a.com", "x", "u:p", "no D-Bus"},
		{"broken helper of the host", `{"credHelpers":{"a.com":"broken"},"auths":{"a.com":` + auth("u") + `}}`, "a.com", "x", "", "no D-Bus"},
		{"absent helper", `{"credsStore":"absent"}`, "a.com", "x", "", "not found"},
		{"helper with a path", `{"credsStore":"../../bin/evil"}`, "a.com", "x", "", "letters, digits"},
		{"junk of a helper", `{"credsStore":"junk"}`, "a.com", "x", "", "not the JSON"},
		{"endless helper", `{"credsStore":"endless"}`, "a.com", "x", "", "larger than"},
		{"hanging helper", `{"credsStore":"hang"}`, "a.com", "x", "", "no answer within"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "auth.json")
			writeFile(t, file, []byte(tt.file))
			c := client(t)
			c.AuthFiles = []string{filepath.Join(dir, "absent.json"), file}
			c.Timeouts.Helper = 300 * time.Millisecond
			if !strings.Contains(tt.name, "hanging") {
				c.Timeouts.Helper = 10 * time.Second
			}
			s, ignored := c.secret(soon(t), &endpoint{host: tt.host, repository: tt.repo})
			got := ""
			if !s.empty() {
				got = s.user + ":" + s.password
			}
			if s.identity != "" {
				got += " identity " + s.identity
			}
			if s.bearer != "" {
				got += " bearer " + s.bearer
			}
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if (ignored == nil) != (tt.note == "") || ignored != nil && !strings.Contains(ignored.Error(), tt.note) {
				t.Errorf("note %v, want %q", ignored, tt.note)
			}
		})
	}
}

func TestOwnConfigurationWins(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, ".dockercfg"), []byte(`{"a.com":{"auth":"dTpw"},"https://index.docker.io/v1/":{"auth":"dTpw"}}`))
	c := client(t)
	c.AuthFiles = []string{filepath.Join(dir, ".dockercfg")}
	c.Config = &config.Config{DockerAuth: map[string]config.BasicSecret{"docker.io": {User: "own", Password: "p"}}}
	for host, user := range map[string]string{"a.com": "u", config.HubHost: "own", "b.com": ""} {
		if s, err := c.secret(t.Context(), &endpoint{host: host, repository: "x"}); err != nil || s.user != user {
			t.Errorf("%s: %q, %v", host, s.user, err)
		}
	}
}

package registry

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/stage0/config"
	"github.com/rkt-systemd/rkt/stage0/oci"
)

const theToken = "dG9rZW4="

// guard makes a site ask for Bearer tokens (realm) or, with "", for Basic.
func guard(s *site, realm string) {
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:pass"))
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		auth := r.Header.Get("Authorization")
		switch {
		case realm == "" && auth == basic, realm != "" && auth == "Bearer "+theToken:
			return false
		case realm == "":
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="srv",scope="repository:victim/private:pull,push"`)
		}
		w.WriteHeader(401)
		return true
	}
}

// tokenServer hands out tokens and counts nothing but what site does.
func tokenServer(s *site, answer string) {
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		fmt.Fprint(w, answer)
		return true
	}
}

func login(hosts ...string) *config.Config {
	c := &config.Config{DockerAuth: map[string]config.BasicSecret{}, Registries: map[string]config.Registry{}}
	for _, h := range hosts {
		c.DockerAuth[h] = config.BasicSecret{User: "user", Password: "pass"}
	}
	return c
}

// check list: 26, 64
func TestBearer(t *testing.T) {
	for _, answer := range []string{`{"token":"` + theToken + `"}`, `{"access_token":"` + theToken + `","expires_in":300}`} {
		s, auth := newSite(t, true), newSite(t, true)
		s.image(t, "a", "1", "amd64", []byte("x"))
		guard(s, auth.URL+"/token?x=y")
		tokenServer(auth, answer)
		c := client(t, s, auth)
		c.Config = login(s.host)
		r := open(t, c, s.host+"/a:1")
		if _, err := r.Image(soon(t), amd64); err != nil {
			t.Fatal(err)
		}
		log := auth.requests()
		if len(log) != 1 {
			t.Fatalf("%+v", log)
		}
		// The scope is what is needed, whatever the registry suggests.
		if log[0].path != "/token?scope=repository%3Aa%3Apull&service=srv&x=y" || log[0].auth != "Basic dXNlcjpwYXNz" {
			t.Errorf("%+v", log)
		}
		s.forget()
		if _, err := r.Head(soon(t)); err != nil || len(s.requests()) != 1 {
			t.Errorf("%v: the token was not kept: %+v", err, s.requests())
		}
	}
}

func TestAnonymousToken(t *testing.T) {
	s, auth := newSite(t, true), newSite(t, true)
	s.image(t, "a", "1", "amd64", []byte("x"))
	guard(s, auth.URL)
	tokenServer(auth, `{"token":"`+theToken+`"}`)
	c := client(t, s, auth)
	c.Config = login(auth.host, "example.com") // not those of the registry
	if _, err := open(t, c, s.host+"/a:1").Image(soon(t), amd64); err != nil {
		t.Fatal(err)
	}
	if log := auth.requests(); len(log) != 1 || log[0].auth != "" {
		t.Errorf("%+v", log)
	}
}

// A token that expired early is replaced; one request is repeated.
func TestTokenIsRenewed(t *testing.T) {
	s, auth := newSite(t, true), newSite(t, true)
	s.image(t, "a", "1", "amd64", []byte("x"))
	guard(s, auth.URL)
	tokenServer(auth, `{"token":"`+theToken+`"}`)
	c := client(t, s, auth)
	r := open(t, c, s.host+"/a:1")
	if _, err := r.Head(soon(t)); err != nil {
		t.Fatal(err)
	}
	for k := range c.tokens {
		c.tokens[k] = token{"Bearer old", c.tokens[k].expires}
	}
	if _, err := r.Head(soon(t)); err != nil || len(auth.requests()) != 2 {
		t.Error(err, auth.requests())
	}
}

func TestBasic(t *testing.T) {
	s := newSite(t, true)
	s.image(t, "a", "1", "amd64", []byte("x"))
	guard(s, "")
	c := client(t, s)
	_, err := open(t, c, s.host+"/a:1").Image(soon(t), amd64)
	wantError(t, err, "asks for credentials, and none are configured")
	var auth *AuthError
	if !errors.As(err, &auth) || !errors.Is(err, ErrUnauthorized) || !strings.Contains(auth.Hint(), "podman login "+s.host) {
		t.Errorf("%v", err)
	}
	c = client(t, s)
	c.Config = login(s.host)
	if _, err := open(t, c, s.host+"/a:1").Image(soon(t), amd64); err != nil {
		t.Error(err)
	}
	c = client(t, s)
	c.Config = login()
	c.Config.DockerAuth[s.host] = config.BasicSecret{User: "user", Password: "wrong"}
	s.forget()
	_, err = open(t, c, s.host+"/a:1").Image(soon(t), amd64)
	wantError(t, err, "refuses the credentials", "401")
	if n := len(s.requests()); n > 3 {
		t.Errorf("%d requests", n)
	}
}

// TestCredentialsStayHome: whatever a registry answers, a password or token
// arrives nowhere but at it and, over https, at the token server it names.
// check list: 26, 28
func TestCredentialsStayHome(t *testing.T) {
	const layers = "/blobs/"
	for _, tt := range []struct {
		name string
		do   func(s, other, plain *site)
		err  string
	}{
		{"manifest redirected to another host", func(s, other, _ *site) {
			guardThen(s, func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
				return true
			})
		}, ""},
		{"layer redirected to another host", func(s, other, _ *site) {
			guardThen(s, func(w http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.URL.Path, layers) {
					http.Redirect(w, r, other.URL+r.URL.Path, http.StatusFound)
					return true
				}
				return false
			})
		}, ""},
		{"redirected away and back", func(s, other, _ *site) {
			guardThen(s, func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.RawQuery == "" {
					http.Redirect(w, r, other.URL+r.URL.Path, http.StatusFound)
					return true
				}
				return false
			})
			other.hook = func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, s.URL+r.URL.Path+"?back", http.StatusFound)
				return true
			}
		}, ""},
		{"another host asks for credentials", func(s, other, _ *site) {
			guardThen(s, func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, other.URL+r.URL.Path, http.StatusFound)
				return true
			})
			other.hook = func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("WWW-Authenticate", `Basic realm="gimme"`)
				w.WriteHeader(401)
				return true
			}
		}, "401"},
		{"redirected to plain http", func(s, _, plain *site) {
			guardThen(s, func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, plain.URL+r.URL.Path, http.StatusFound)
				return true
			})
		}, "a redirect to plain http"},
		{"token server over plain http", func(s, _, plain *site) { guard(s, plain.URL+"/token") }, "a token server with plain http"},
		{"token server redirects", func(s, other, plain *site) {
			guard(s, s.URL+"/token")
			inner := s.hook
			s.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/token" {
					http.Redirect(w, r, other.URL+"/token", http.StatusTemporaryRedirect)
					return true
				}
				return inner(w, r)
			}
		}, "HTTP status 307"},
		{"token server with a password in its URL", func(s, other, _ *site) {
			guard(s, strings.Replace(other.URL, "https://", "https://u:p@", 1))
		}, "no URL of https"},
		{"token server in a file", func(s, _, _ *site) { guard(s, "file:///etc/passwd") }, "no URL of https"},
		{"relative token server", func(s, _, _ *site) { guard(s, "/token") }, "no URL of https"},
		{"no token server", func(s, _, _ *site) {
			s.hook = func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("WWW-Authenticate", `Bearer service="x"`)
				w.WriteHeader(401)
				return true
			}
		}, "names no token server"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, other, plain := newSite(t, true), newSite(t, true), newSite(t, false)
			for _, x := range []*site{s, other, plain} {
				x.image(t, "a", "1", "amd64", []byte("x"))
			}
			tt.do(s, other, plain)
			c := client(t, s, other)
			c.Config = login(s.host)
			r := open(t, c, s.host+"/a:1")
			img, err := r.Image(soon(t), amd64)
			if err == nil {
				_, err = readBlob(soon(t), r, img.Layers[0].Descriptor, 0)
			}
			if tt.err == "" && err != nil {
				t.Error(err)
			} else if tt.err != "" {
				wantError(t, err, tt.err)
			}
			for _, l := range append(other.requests(), plain.requests()...) {
				if l.auth != "" || strings.Contains(l.path, "pass") {
					t.Errorf("credentials left their host: %+v", l)
				}
			}
			for _, l := range s.requests() {
				if strings.Contains(l.path, "?back") && l.auth != "" {
					t.Errorf("credentials came back: %+v", l)
				}
			}
			if len(plain.requests()) != 0 {
				t.Errorf("requests over plain http: %v", plain.requests())
			}
		})
	}
}

func guardThen(s *site, then func(http.ResponseWriter, *http.Request) bool) {
	guard(s, "")
	inner := s.hook
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.RawQuery == "back" {
			return false
		}
		return inner(w, r) || then(w, r)
	}
}

// check list: 26
func TestCredentialsOverHTTPOnlyWhereAllowed(t *testing.T) {
	s, auth := newSite(t, false), newSite(t, false)
	s.image(t, "a", "1", "amd64", []byte("x"))
	guard(s, "")
	c := client(t)
	c.Config = login(s.host)
	if _, err := open(t, c, s.host+"/a:1").Image(soon(t), amd64); err == nil {
		t.Error("plain http without being asked to")
	}
	c = client(t)
	c.Config = login(s.host)
	c.Config.Registries[s.host] = config.Registry{Prefix: s.host, Insecure: true}
	if _, err := open(t, c, s.host+"/a:1").Image(soon(t), amd64); err != nil {
		t.Error(err)
	}
	// A token server on the same host but another port belongs to the registry;
	// elsewhere it does not.
	guard(s, auth.URL)
	tokenServer(auth, `{"token":"`+theToken+`"}`)
	c = client(t)
	c.Config = login(s.host)
	c.Config.Registries[s.host] = config.Registry{Prefix: s.host, Insecure: true}
	if _, err := open(t, c, s.host+"/a:1").Image(soon(t), amd64); err != nil {
		t.Error(err)
	}
	auth.forget()
	guard(s, strings.Replace(auth.URL, "127.0.0.1", "localhost", 1))
	c = client(t)
	c.Config = login(s.host)
	c.Config.Registries[s.host] = config.Registry{Prefix: s.host, Insecure: true}
	_, err := open(t, c, s.host+"/a:1").Image(soon(t), amd64)
	wantError(t, err, "a token server with plain http")
	if len(auth.requests()) != 0 {
		t.Error(auth.requests())
	}
}

// TestHostileChallenges: 401 for ever, junk, and token servers that misbehave.
func TestHostileChallenges(t *testing.T) {
	for _, tt := range []struct {
		name, header, token, err string
	}{
		{"no header", "", "", "does not say how"},
		{"unknown scheme", "Negotiate YII=", "", `it offers only "negotiate"`},
		{"several unknown schemes", "Digest a=b, NTLM", "", `it offers only "digest, ntlm"`},
		{"junk", "\"\\", "", "bad WWW-Authenticate"},
		{"open quotation", `Bearer realm="https://x`, "", "a quotation mark is missing"},
		{"realm twice", `Bearer realm="a",realm="b"`, "", "given twice"},
		{"very long", "Bearer x=\"" + strings.Repeat("y", 20000) + "\"", "", "longer than"},
		{"many challenges", strings.Repeat("Basic, ", 100), "", "more than 16 challenges"},
		{"always 401", `Bearer realm="TOKEN"`, `{"token":"abc"}`, "asks for credentials"},
		{"token is no JSON", `Bearer realm="TOKEN"`, `<html>`, "not the JSON"},
		{"no token", `Bearer realm="TOKEN"`, `{}`, "no token"},
		{"token of wrong type", `Bearer realm="TOKEN"`, `{"token":1}`, "not the JSON"},
		{"token injects a header", `Bearer realm="TOKEN"`, `{"token":"x\r\nHost: evil"}`, "malformed token"},
		{"huge token", `Bearer realm="TOKEN"`, `{"token":"` + strings.Repeat("x", 70000) + `"}`, "malformed token"},
		{"endless token", `Bearer realm="TOKEN"`, strings.Repeat(" ", 2<<20), "larger than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, auth := newSite(t, true), newSite(t, true)
			tokenServer(auth, tt.token)
			s.hook = func(w http.ResponseWriter, _ *http.Request) bool {
				if tt.header != "" {
					w.Header()["Www-Authenticate"] = []string{strings.ReplaceAll(tt.header, "TOKEN", auth.URL)}
				}
				w.WriteHeader(401)
				return true
			}
			_, err := open(t, client(t, s, auth), s.host+"/a:1").Image(soon(t), amd64)
			wantError(t, err, tt.err)
			if n := len(s.requests()) + len(auth.requests()); n > 6 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestTokenServerFailures(t *testing.T) {
	for _, tt := range []struct {
		code, requests int
		err            string
	}{{401, 1, "refuses the credentials"}, {403, 1, "refuses the credentials"}, {500, 3, "getting a token"}, {404, 1, "getting a token"}} {
		s, auth := newSite(t, true), newSite(t, true)
		guard(s, auth.URL)
		auth.hook = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(tt.code); return true }
		c := client(t, s, auth)
		c.Config = login(s.host)
		_, err := open(t, c, s.host+"/a:1").Image(soon(t), amd64)
		wantError(t, err, tt.err)
		if n := len(auth.requests()); n != tt.requests || len(s.requests()) != 1 || errors.Is(err, ErrNotFound) {
			t.Errorf("status %d: %d requests, %v", tt.code, n, err)
		}
		for _, l := range auth.requests() {
			if strings.Contains(err.Error(), l.path) && strings.Contains(l.path, "?") {
				t.Errorf("the error shows the query: %v", err)
			}
		}
	}
}

// Identity tokens are exchanged by POST, never shown in a URL.
func TestIdentityToken(t *testing.T) {
	s, auth := newSite(t, true), newSite(t, true)
	s.image(t, "a", "1", "amd64", []byte("x"))
	guard(s, auth.URL)
	auth.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || r.FormValue("refresh_token") != "secret-identity" || r.FormValue("grant_type") != "refresh_token" || r.FormValue("scope") != "repository:a:pull" {
			w.WriteHeader(400)
			return true
		}
		fmt.Fprint(w, `{"access_token":"`+theToken+`"}`)
		return true
	}
	file := filepath.Join(t.TempDir(), "auth.json")
	writeFile(t, file, fmt.Appendf(nil, `{"auths":{%q:{"identitytoken":"secret-identity"}}}`, s.host))
	c := client(t, s, auth)
	c.AuthFiles = []string{file}
	if _, err := open(t, c, s.host+"/a:1").Image(soon(t), amd64); err != nil {
		t.Fatal(err)
	}
	for _, l := range append(auth.requests(), s.requests()...) {
		if strings.Contains(l.path+l.auth, "secret-identity") {
			t.Errorf("%+v", l)
		}
	}
}

// A credential helper of the operator is asked once for many layers.
func TestHelperIsAskedOnce(t *testing.T) {
	s := newSite(t, true)
	s.image(t, "a", "1", "amd64", []byte("x"))
	guard(s, "")
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "docker-credential-test"), []byte("#!/bin/sh\necho asked >> "+filepath.Join(dir, "log")+"\necho '{\"Username\":\"user\",\"Secret\":\"pass\"}'\n"))
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	file := filepath.Join(dir, "config.json")
	writeFile(t, file, []byte(`{"credsStore":"test"}`))
	c := client(t, s)
	c.AuthFiles = []string{file}
	r := open(t, c, s.host+"/a:1")
	img, err := r.Image(soon(t), amd64)
	if err != nil {
		t.Fatal(err)
	}
	c.tokens = nil
	if _, err := readBlob(soon(t), r, img.Layers[0].Descriptor, 0); err != nil {
		t.Fatal(err)
	}
	if log, err := readSmall(filepath.Join(dir, "log"), 100); err != nil || string(log) != "asked\n" {
		t.Errorf("%q, %v", log, err)
	}
}

func FuzzChallenge(f *testing.F) {
	for _, s := range []string{
		`Bearer realm="https://a/t",service="s",scope="repository:a:pull"`, `Basic realm="x"`, `Basic`, `Negotiate YII==, Basic realm=x`,
		`Bearer realm="a\"b", error="x"`, `, ,Basic realm=a , Bearer realm=b`, `a=b`, `Bearer realm=`, `Bearer ==`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		all, err := parseChallenges([]string{s})
		if err != nil {
			return
		}
		if len(all) > maxChallenges {
			t.Fatalf("%d challenges", len(all))
		}
		// What was understood can be written down and is understood the same.
		var lines []string
		for _, c := range all {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) {
				t.Fatalf("scheme %q", c.scheme)
			}
			line := c.scheme
			sep := " "
			for k, v := range c.params {
				line += sep + k + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`
				sep = ","
			}
			lines = append(lines, line)
		}
		if len(strings.Join(lines, "")) > maxChallengeText {
			return
		}
		again, err := parseChallenges(lines)
		if err != nil || len(again) != len(all) {
			t.Fatalf("%q again: %v, %v", lines, again, err)
		}
		for i, c := range all {
			for k, v := range c.params {
				if again[i].params[k] != v {
					t.Fatalf("%q: %q, want %q", k, again[i].params[k], v)
				}
			}
		}
	})
}

func TestParseChallenges(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`Bearer realm="https://a/t",service="s"`, `bearer map[realm:https://a/t service:s]`},
		{`bearer service=s , REALM="a,b=c"`, `bearer map[realm:a,b=c service:s]`},
		{`Basic realm="x", Bearer realm="y"`, `basic map[realm:x] bearer map[realm:y]`},
		{`Basic, Bearer realm="y\"z"`, `basic map[] bearer map[realm:y"z]`},
		{`Negotiate YII==, Basic realm=x`, `negotiate map[] basic map[realm:x]`},
		{`,,Basic`, `basic map[]`},
		{``, ``},
	} {
		all, err := parseChallenges([]string{tt.in})
		var got []string
		for _, c := range all {
			got = append(got, fmt.Sprint(c.scheme, " ", c.params))
		}
		if s := strings.Join(got, " "); err != nil || s != tt.want {
			t.Errorf("%s = %s, %v, want %s", tt.in, s, err, tt.want)
		}
	}
	for _, in := range []string{`=`, `"`, `Bearer "x"`, `Bearer a=b,realm=`, `Bearer realm="x"y=z`, "Bearer realm=\"\x00\"", `Bearer realm="x\`, `Bearer a=b, a=c`} {
		if all, err := parseChallenges([]string{in}); err == nil {
			t.Errorf("%s = %v", in, all)
		}
	}
}

var _ oci.Source = (*Repository)(nil)

// A token server that is down is no reason to talk to its registry over http.
func TestTokenServerDownIsNoDowngrade(t *testing.T) {
	s, auth := newSite(t, true), newSite(t, true)
	guard(s, auth.URL)
	auth.hook = func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }
	c := client(t, s, auth)
	c.InsecureHTTP = true
	_, err := open(t, c, s.host+"/a:1").Image(soon(t), amd64)
	wantError(t, err, "getting a token", "EOF")
	if strings.Contains(err.Error(), "over http") || len(s.requests()) != 1 {
		t.Errorf("%v after %d requests", err, len(s.requests()))
	}
}

package registry

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/rkt-systemd/rkt/stage0/config"
)

// Nothing secret is in an error or in the log, whatever goes wrong.
func TestSecretsAreNotShown(t *testing.T) {
	for name, spoil := range map[string]func(s, auth *site){
		"wrong password":      func(s, _ *site) { guard(s, "") },
		"token server down":   func(s, auth *site) { guard(s, auth.URL); auth.hook = status(500) },
		"token server denies": func(s, auth *site) { guard(s, auth.URL); auth.hook = status(401) },
		"layers elsewhere": func(s, auth *site) {
			s.hook = func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, auth.URL+"/x?X-Amz-Signature=hunter2", http.StatusFound)
				return true
			}
			auth.hook = status(503)
		},
		"token refused": func(s, auth *site) { guard(s, auth.URL); tokenServer(auth, `{"token":"hunter2"}`) },
		"token malformed": func(s, auth *site) {
			guard(s, auth.URL)
			tokenServer(auth, `{"token":"hunter2\n"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, auth := newSite(t, true), newSite(t, true)
			spoil(s, auth)
			c := client(t, s, auth)
			c.Config = &config.Config{DockerAuth: map[string]config.BasicSecret{s.host: {User: "user", Password: "hunter2"}}}
			c.AuthFiles = []string{filepath.Join(t.TempDir(), "absent")}
			var log strings.Builder
			l := logrus.New()
			l.SetOutput(&log)
			l.SetLevel(logrus.DebugLevel)
			c.Log = l
			_, err := open(t, c, s.host+"/a:1").Image(soon(t), amd64)
			if err == nil {
				t.Fatal("no error")
			}
			if text := err.Error() + log.String(); strings.Contains(text, "hunter2") || strings.Contains(text, "dXNlcjpodW50ZXIy") {
				t.Errorf("a secret is shown: %s", text)
			}
		})
	}
}

func status(code int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(code); return true }
}

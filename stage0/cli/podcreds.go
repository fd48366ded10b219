package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/rkt-systemd/rkt/internal/msgid"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/journal"
)

// exitCredentials is systemd's exit status of a service whose credentials could
// not be set up (systemd.exec(5)).
const exitCredentials = "243"

// explainCredentials says which credential of a declared pod is not there, when
// that is why its unit failed: systemd itself says "Protocol error" and no name.
func (a *app) explainCredentials(name string) {
	if a.Getenv("EXIT_CODE") != "exited" || a.Getenv("EXIT_STATUS") != exitCredentials {
		return
	}
	p, problems := podfile.Load(podfile.SearchOptions{}, name)
	if podfile.Failed(problems) {
		return // which is said elsewhere
	}
	l := a.log.WithField(journal.KeyPodName, name).WithField(journal.KeyMessageID, msgid.PodCredential)
	missing := missingCredentials(p)
	for _, m := range missing {
		l.Error(m)
	}
	if len(missing) == 0 {
		l.Error("a credential cannot be read although its file is there: is it empty, or encrypted on another host or under another name? systemd-creds decrypt FILE tells")
	}
}

func missingCredentials(p *podfile.Pod) []string {
	var out []string
	for _, c := range p.Rkt.Credentials {
		path := c.Load
		if path == "" && strings.HasPrefix(c.Encrypted, "/") {
			path = c.Encrypted
		}
		if path == "" {
			continue
		}
		var why *fs.PathError
		if _, err := os.Stat(path); errors.As(err, &why) {
			out = append(out, fmt.Sprintf("credential %q (rkt.credentials of the pod file): %s: %v", c.Name, path, why.Err))
		}
	}
	return out
}

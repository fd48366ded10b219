package podunit

import (
	"strings"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/unitfile"
)

// CredentialDir holds what pod files set as credentials, below the generator's
// output directory; systemd takes nothing in it for units.
const CredentialDir = "rkt-credentials"

// credentials adds the directives by which systemd reads the pod's credentials
// when it starts. A text that the file itself holds must not get into a unit
// file, which everybody can read, nor into a property of the unit: it goes into
// a file of root's, which systemd loads like the others.
func credentials(u *unitfile.File, p *podfile.Pod, opts Options) []File {
	var secrets []File
	dir := opts.OutputDir
	if dir == "" {
		dir = DefaultOutputDir
	}
	for _, c := range p.Rkt.Credentials {
		switch {
		case c.HasSet:
			file := CredentialDir + "/" + p.Name + "/" + c.Name
			u.Set("Service", "LoadCredential", c.Name+":"+dir+"/"+file)
			secrets = append(secrets, File{Path: file, Data: []byte(c.Set), Secret: true})
		case c.Load != "":
			u.Set("Service", "LoadCredential", c.Name+":"+c.Load)
		case strings.HasPrefix(c.Encrypted, "/"):
			u.Set("Service", "LoadCredentialEncrypted", c.Name+":"+c.Encrypted)
		default:
			u.Set("Service", "SetCredentialEncrypted", c.Name+":"+c.Encrypted)
		}
	}
	return secrets
}

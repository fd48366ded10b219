package plan

import (
	"path"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/appcred"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// credentials says which of the pod's credentials an app gets. The entrypoint
// mounts a directory with them alone, see launch.Spec.CredentialsFrom; below is
// where the pod's root is as the launcher sees it.
func credentials(ra *schema.RuntimeApp, s *launch.Spec, below string) error {
	text, ok := ra.Annotations.Get(appcred.Annotation)
	if !ok {
		return nil
	}
	cs, err := appcred.Decode(text)
	if err != nil || len(cs) == 0 {
		return err
	}
	s.CredentialsFrom = path.Join(below, podfs.CredentialDir, s.Name)
	s.CredentialsAt = appcred.Dir(s.Name)
	s.Env = launch.SetEnv(s.Env, "CREDENTIALS_DIRECTORY="+s.CredentialsAt)
	for _, c := range cs {
		s.Credentials = append(s.Credentials, launch.Credential{Name: c.Name, File: c.File})
		if c.Env != "" {
			s.Env = launch.SetEnv(s.Env, c.Env+"="+c.Path(s.Name))
		}
	}
	return nil
}

package compose

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"

	"github.com/rkt-systemd/rkt/stage0/podimport"
)

// envFiles are files of the host, read at every start. rkt takes their lines as
// they are, compose has quotes and variables in them: of such a file a plain copy
// is made.
func (s *service) envFiles() error {
	for i, e := range s.conf.EnvFiles {
		path := filepath.Clean(e.Path)
		if !filepath.IsAbs(path) || strings.ContainsAny(path, "\n\x00") {
			return fmt.Errorf("%q is no absolute path", e.Path)
		}
		if !s.first || len(s.services) > 1 {
			s.note(podimport.Changed, "env_file", "%s is read for all apps of the pod", path)
		}
		data, err := s.c.in.read(path, "/")
		switch {
		case err == nil && !plainEnv(data):
			vars, err := parseEnv(data, s.c.in.env)
			if err != nil {
				return fmt.Errorf("reading the variables of %q: %w", path, err)
			}
			copied := s.c.path(podimport.FileName(s.name) + "-" + strconv.Itoa(i) + ".env")
			s.c.file(copied, s.lines(path, vars), 0o600)
			s.note(podimport.Changed, "env_file", "%s has quotes, variables or spaces, which rkt takes as they are; what they mean to compose is in %s: change it there", path, copied)
			path = copied
		case err == nil:
		case !errors.Is(err, fs.ErrNotExist):
			s.note(podimport.Changed, "env_file", "%s was not read (%v): rkt reads it at every start, and takes its lines NAME=VALUE as they are, with quotes if there are any", path, err)
		case bool(e.Required):
			s.note(podimport.Todo, "env_file", "%s is not there; without it the pod does not start", path)
		}
		if !e.Required {
			path = "-" + path
		}
		s.file.Rkt.EnvironmentFiles = append(s.file.Rkt.EnvironmentFiles, path)
	}
	return nil
}

func (s *service) lines(path string, vars map[string]string) string {
	var out []string
	for k, v := range vars {
		if strings.ContainsAny(v, "\n\x00") {
			s.note(podimport.Todo, "env_file", "%s of %s has several lines: put it into the app's environment", k, path)
			continue
		}
		out = append(out, k+"="+v+"\n")
	}
	sort.Strings(out)
	return strings.Join(out, "")
}

// plainEnv says whether rkt reads a file of variables as compose does.
func plainEnv(data []byte) bool {
	seen := map[string]bool{}
	for line := range strings.SplitSeq(string(data), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		k, v, ok := strings.Cut(line, "=")
		if !ok || seen[k] || strings.ContainsAny(k, " \t\"'#;") || strings.ContainsAny(v, "\"'$#\\\r") || strings.TrimSpace(v) != v {
			return false
		}
		seen[k] = true
	}
	return true
}

// Variables reads a file of variables as compose does; values may refer to those
// of lookup.
func Variables(data []byte, lookup map[string]string) (map[string]string, error) {
	return parseEnv(data, lookup)
}

// parseEnv reads a file of variables as compose does: with quotes, and with
// variables of lookup in values.
func parseEnv(data []byte, lookup map[string]string) (map[string]string, error) {
	return dotenv.ParseWithLookup(strings.NewReader(string(data)), func(name string) (string, bool) {
		v, ok := lookup[name]
		return v, ok
	})
}

package podfile

import (
	"errors"
	"strconv"
	"strings"
)

// maxName is the longest name: a machine name is a host name.
const maxName = 64

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// CheckName checks the name of a pod, of a template ("web@") or of a
// template's instance ("web@x"). The name becomes the instance of a unit and
// the name of a machine, so it has the characters both can have.
func CheckName(name string) error {
	prefix, instance, isTemplate := strings.Cut(name, "@")
	switch {
	case prefix == "":
		return errors.New("pod name is empty")
	case len(name) > maxName:
		return errors.New("pod name is longer than " + strconv.Itoa(maxName) + " characters")
	case !isAlnum(prefix[0]) || !isAlnum(prefix[len(prefix)-1]):
		return errors.New("pod name " + strconv.Quote(name) + " must begin and end with a letter or digit")
	case strings.Contains(prefix, ".."):
		return errors.New("pod name " + strconv.Quote(name) + " must not contain \"..\"")
	}
	for i := 0; i < len(prefix); i++ {
		if c := prefix[i]; !isAlnum(c) && c != '-' && c != '_' && c != '.' {
			return errors.New("pod name " + strconv.Quote(name) + " may only have letters, digits and \"-_.\"")
		}
	}
	if isTemplate {
		for i := 0; i < len(instance); i++ {
			// What systemd allows in a unit name, without a second "@".
			if c := instance[i]; !isAlnum(c) && strings.IndexByte(":-_.\\", c) < 0 {
				return errors.New("instance of " + strconv.Quote(name) + " may only have letters, digits and \":-_.\\\"")
			}
		}
		// Members of group rkt choose instances, and root writes paths with %i and
		// %I in them: neither may lead out of where it stands.
		for _, part := range append(strings.Split(unescape(instance), "/"), instance) {
			if part == "." || part == ".." {
				return errors.New("instance of " + strconv.Quote(name) + " must not be \".\" or \"..\", nor have that between slashes (a \"-\" stands for one)")
			}
		}
	}
	if isUUID(strings.TrimPrefix(name, "rkt-")) {
		return errors.New("pod name " + strconv.Quote(name) + " looks like the UUID of a pod")
	}
	return nil
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
		} else if !(c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f') {
			return false
		}
	}
	return true
}

// isACName reports whether s is an appc AC name.
func isACName(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9') && (c != '-' || s[i-1] == '-') {
			return false
		}
	}
	return true
}

// isACIdentifier reports whether s is an appc AC identifier.
func isACIdentifier(s string) bool {
	edge := func(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
	if s == "" || !edge(s[0]) || !edge(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !edge(c) && (strings.IndexByte("-._~/", c) < 0 || !edge(s[i-1])) {
			return false
		}
	}
	return true
}

// AppName derives the name of an app from an image's name or reference: the
// last component of its path without file extension, tag or digest, made an
// AC name. It returns "" when nothing is left or the reference is a bare hash.
func AppName(ref string) string {
	if strings.HasPrefix(ref, "sha512-") {
		return ""
	}
	ref, _, _ = strings.Cut(ref, "?")
	ref, _, _ = strings.Cut(ref, "#")
	ref, _, _ = strings.Cut(ref, ",")
	ref, _, _ = strings.Cut(ref, "@")
	ref = strings.TrimRight(ref, "/")
	ref = ref[strings.LastIndexByte(ref, '/')+1:]
	ref, _, _ = strings.Cut(ref, ":")
	for {
		i := strings.LastIndexByte(ref, '.')
		if i <= 0 || !isExtension(ref[i+1:]) {
			break
		}
		ref = ref[:i]
	}
	b := make([]byte, 0, len(ref))
	for i := 0; i < len(ref); i++ {
		c := ref[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if !isAlnum(c) {
			c = '-'
		}
		if c == '-' && (len(b) == 0 || b[len(b)-1] == '-') {
			continue
		}
		b = append(b, c)
	}
	return strings.TrimRight(string(b), "-")
}

func isExtension(s string) bool {
	switch strings.ToLower(s) {
	case "aci", "tar", "gz", "tgz", "bz2", "xz", "zst", "oci", "json":
		return true
	}
	return false
}

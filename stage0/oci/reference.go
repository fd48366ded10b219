package oci

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// DefaultHost is the registry of references that name none.
const DefaultHost = "registry-1.docker.io"

const (
	defaultTag = "latest"
	library    = "library/"
	maxName    = 255 // bytes of host and repository, as App Container names allow
	maxRef     = 4096
)

var (
	hostPattern       = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	repositoryPattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern        = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
)

// Reference names an image of a registry, in canonical form: two references to
// the same thing are equal.
type Reference struct {
	Host       string // HOST[:PORT], lower case; Docker Hub is DefaultHost
	Repository string
	Tag        string // "" only when there is a digest
	Digest     string // "" or "sha256:…": what is pulled, whatever the tag says
}

// ParseReference parses [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]. The first
// component is a host if it holds a dot or a colon or is "localhost"; without a
// host it is Docker Hub, and there a single word lives under library/. Slashes
// that follow "docker:" may lead it.
func ParseReference(text string) (Reference, error) {
	ref, err := parseReference(text)
	if err != nil {
		return Reference{}, fmt.Errorf("registry reference %q: %w", clip(text), err)
	}
	return ref, nil
}

func parseReference(text string) (ref Reference, err error) {
	if len(text) > maxRef {
		return ref, fmt.Errorf("longer than %d bytes", maxRef)
	}
	rest, slashes := strings.CutPrefix(text, "//")
	if slashes {
		rest = strings.TrimPrefix(rest, "/") // docker:///redis
	}
	rest, digest, digested := strings.Cut(rest, "@")
	if digested {
		if _, err := ParseDigest(digest); err != nil {
			return ref, err
		}
		ref.Digest = digest
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') && !strings.HasSuffix(rest, "]") {
		rest, ref.Tag = rest[:i], rest[i+1:]
		if !tagPattern.MatchString(ref.Tag) {
			return ref, fmt.Errorf("bad tag %q: at most 128 letters, digits and any of _ . -", clip(ref.Tag))
		}
	} else if !digested {
		ref.Tag = defaultTag
	}
	host, path, ok := strings.Cut(rest, "/")
	if !ok || host != "localhost" && !strings.ContainsAny(host, ".:") {
		host, path = DefaultHost, rest
	}
	if ref.Host, err = canonicalHost(host); err != nil {
		return ref, err
	}
	if ref.Host == DefaultHost && !strings.Contains(path, "/") && path != "" {
		path = library + path
	}
	if ref.Repository, err = checkRepository(path); err != nil {
		return ref, err
	}
	if n := len(ref.Scope()); n > maxName {
		return ref, fmt.Errorf("host and repository have %d bytes together, more than %d", n, maxName)
	}
	return ref, nil
}

func checkRepository(path string) (string, error) {
	switch {
	case path == "":
		return "", fmt.Errorf("it names no repository")
	case repositoryPattern.MatchString(path):
		return path, nil
	case path != strings.ToLower(path):
		return "", fmt.Errorf("bad repository %q: must be in lower case", clip(path))
	}
	return "", fmt.Errorf("bad repository %q: lower case letters and digits, separated by one of . _ __ - /", clip(path))
}

// canonicalHost checks HOST[:PORT] and gives every registry one name.
func canonicalHost(text string) (string, error) {
	bad := func(why string) (string, error) { return "", fmt.Errorf("bad host %q: %s", clip(text), why) }
	host, port := strings.ToLower(text), ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host, port = host[:i], host[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return bad("the port is not a number from 1 to 65535")
		} else {
			port = ":" + strconv.FormatUint(n, 10)
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !strings.HasSuffix(inner, "]") || !addr.Is6() || addr.Zone() != "" {
			return bad("want an IPv6 address in brackets")
		}
		return "[" + addr.String() + "]" + port, nil
	}
	switch {
	case !hostPattern.MatchString(host):
		return bad("not a host name")
	case port == "" && (host == "docker.io" || host == "index.docker.io"):
		return DefaultHost, nil
	}
	return host + port, nil
}

// String is the canonical form, with everything; ParseReference understands it.
func (r Reference) String() string { return r.Scope() + r.suffix(r.Tag) }

func (r Reference) suffix(tag string) string {
	s := ""
	if tag != "" {
		s = ":" + tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// Display is the short form for people: without Docker Hub's host, library/
// and the default tag.
func (r Reference) Display() string {
	name, tag := r.Scope(), r.Tag
	if r.Host == DefaultHost {
		name = r.Repository
		// "library/localhost" must not become the host "localhost".
		if short, ok := strings.CutPrefix(name, library); ok && !strings.Contains(short, "/") {
			name = short
		}
		if first, _, ok := strings.Cut(name, "/"); ok && (first == "localhost" || strings.Contains(first, ".")) {
			name = r.Scope()
		}
	}
	if r.Digest == "" && tag == defaultTag {
		tag = ""
	}
	return name + r.suffix(tag)
}

// Scope is HOST/REPOSITORY as it is: what trust and configuration go by.
func (r Reference) Scope() string { return r.Host + "/" + r.Repository }

// Latest says whether the reference follows the tag "latest", asked for or by default.
func (r Reference) Latest() bool { return r.Tag == defaultTag }

// Name is HOST/REPOSITORY made an App Container name. Different repositories
// may share one, so nothing may be decided by it that Scope can decide.
func (r Reference) Name() string { return acName(r.Scope(), '_') }

// acName makes text an App Container identifier or, when it holds no slash, a
// name: lower case, other characters replaced by bad, of a run of separators
// one (a slash, if there is one), none at the edges.
func acName(text string, bad byte) string {
	out := make([]byte, 0, len(text))
	for _, c := range []byte(strings.ToLower(text)) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			out = append(out, c)
			continue
		case !strings.ContainsRune("-._~/", rune(c)):
			c = bad
		}
		switch n := len(out); {
		case n == 0:
		case strings.IndexByte("-._~/", out[n-1]) < 0:
			out = append(out, c)
		case c == '/':
			out[n-1] = c
		}
	}
	return strings.TrimRight(string(out), "-._~/")
}

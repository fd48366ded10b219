package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rkt-systemd/rkt/stage0/config"
)

const (
	maxAuthFile = 4 << 20
	maxHelper   = 256 << 10 // bytes of a helper's answer
	maxSecret   = 64 << 10
)

// hubServer is the name under which others keep the Docker Hub's login.
const hubServer = "https://index.docker.io/v1/"

// secret is how to authenticate to a registry.
type secret struct {
	user, password string
	identity       string // a token to get tokens with
	bearer         string // a token to send as it is
}

func (s secret) empty() bool { return s == secret{} }

// AuthFiles lists the files in which containers' tools and Docker keep logins,
// the strongest first. getenv is os.Getenv; only the calling user's files count.
func AuthFiles(getenv func(string) string, uid int) []string {
	if f := getenv("REGISTRY_AUTH_FILE"); f != "" {
		return []string{f}
	}
	var files []string
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		files = append(files, filepath.Join(dir, "containers/auth.json"))
	} else {
		files = append(files, filepath.Join("/run/containers", strconv.Itoa(uid), "auth.json"))
	}
	home := getenv("HOME")
	if dir := getenv("XDG_CONFIG_HOME"); dir != "" {
		files = append(files, filepath.Join(dir, "containers/auth.json"))
	} else if home != "" {
		files = append(files, filepath.Join(home, ".config/containers/auth.json"))
	}
	if dir := getenv("DOCKER_CONFIG"); dir != "" {
		files = append(files, filepath.Join(dir, "config.json"))
	} else if home != "" {
		files = append(files, filepath.Join(home, ".docker/config.json"))
	}
	if home != "" {
		files = append(files, filepath.Join(home, ".dockercfg"))
	}
	return files
}

// secretEntry finds a repository's secret once, however many ask.
type secretEntry struct {
	once    sync.Once
	secret  secret
	ignored error
}

// secret finds the credentials for an endpoint; ignored tells what could not
// be read on the way.
func (c *Client) secret(ctx context.Context, e *endpoint) (s secret, ignored error) {
	key := e.host + "/" + e.repository
	c.mu.Lock()
	entry := c.secrets[key]
	if entry == nil {
		if c.secrets == nil {
			c.secrets = map[string]*secretEntry{}
		}
		entry = &secretEntry{}
		c.secrets[key] = entry
	}
	c.mu.Unlock()
	entry.once.Do(func() {
		// Not the first asker's context: others wait for the same answer.
		entry.secret, entry.ignored = c.findSecret(context.WithoutCancel(ctx), e)
	})
	return entry.secret, entry.ignored
}

func (c *Client) findSecret(ctx context.Context, e *endpoint) (secret, error) {
	if s, ok := c.Config.DockerAuthFor(e.host); ok {
		return secret{user: s.User, password: s.Password}, nil
	}
	var ignored []error
	for _, path := range c.AuthFiles {
		f, err := readAuthFile(path)
		if len(c.AuthFiles) > 1 && (errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission)) {
			continue // one of many places; a single one was asked for by name
		}
		if err != nil {
			ignored = append(ignored, fmt.Errorf("reading logins: %w", err))
			continue
		}
		s, err := c.fromFile(ctx, f, e)
		if err != nil {
			ignored = append(ignored, err)
		}
		if !s.empty() {
			return s, list(ignored...)
		}
	}
	return secret{}, list(ignored...)
}

// authFile is ~/.docker/config.json or containers' auth.json.
type authFile struct {
	path        string
	Auths       map[string]authEntry `json:"auths"`
	CredHelpers map[string]string    `json:"credHelpers"`
	CredsStore  string               `json:"credsStore"`
}

type authEntry struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

func readAuthFile(path string) (*authFile, error) {
	data, err := readSmall(path, maxAuthFile)
	if err != nil {
		return nil, err
	}
	f := &authFile{path: path}
	var into any = f
	if filepath.Base(path) == ".dockercfg" {
		into = &f.Auths
	}
	if err := json.Unmarshal(data, into); err != nil {
		return nil, fmt.Errorf("%q: %w", path, err)
	}
	return f, nil
}

// authKey normalises a key of an auth file to host[/path].
func authKey(key string) string {
	if rest, ok := strings.CutPrefix(key, "https://"); ok {
		key, _, _ = strings.Cut(rest, "/") // Docker's keys are URLs of hosts
	} else if rest, ok := strings.CutPrefix(key, "http://"); ok {
		key, _, _ = strings.Cut(rest, "/")
	}
	key = strings.TrimRight(key, "/")
	for _, version := range []string{"/v1", "/v2"} {
		if host, ok := strings.CutSuffix(key, version); ok && !strings.Contains(host, "/") {
			key = host
		}
	}
	host, path, found := strings.Cut(key, "/")
	if host = config.RegistryHost(host); found {
		host += "/" + path
	}
	return host
}

// longest finds the value with the longest key that covers a repository, by
// whole components. Of two spellings of one key the first in order counts.
func longest[V any](m map[string]V, e *endpoint) (key string, v V, ok bool) {
	name := e.host + "/" + e.repository
	best := -1
	for k, candidate := range m {
		n := authKey(k)
		if n == "" || name != n && !strings.HasPrefix(name, n+"/") {
			continue
		}
		if len(n) > best || len(n) == best && k < key {
			best, key, v, ok = len(n), k, candidate, true
		}
	}
	return key, v, ok
}

func (c *Client) fromFile(ctx context.Context, f *authFile, e *endpoint) (secret, error) {
	var ignored error
	if _, name, ok := longest(f.CredHelpers, e); ok && name != "" {
		s, err := c.helper(ctx, name, helperServer(e.host))
		if err != nil || !s.empty() {
			return s, err // the host has its helper: no other login is meant
		}
	}
	key, entry, ok := longest(f.Auths, e)
	if f.CredsStore != "" {
		servers := []string{helperServer(e.host)}
		if ok && !slices.Contains(servers, key) {
			servers = append(servers, key)
		}
		for _, server := range servers {
			s, err := c.helper(ctx, f.CredsStore, server)
			if !s.empty() {
				return s, nil
			}
			if err != nil {
				ignored = err
				break
			}
		}
	}
	if !ok {
		return secret{}, ignored
	}
	s, err := entry.secret()
	if err != nil {
		return secret{}, list(ignored, fmt.Errorf("reading logins: %q: the entry %q: %w", f.path, key, err))
	}
	return s, ignored
}

func (a authEntry) secret() (secret, error) {
	s := secret{user: a.Username, password: a.Password, identity: a.IdentityToken, bearer: a.RegistryToken}
	if a.Auth != "" {
		text, err := base64.StdEncoding.DecodeString(a.Auth)
		if err != nil {
			return secret{}, errors.New("auth is not base64")
		}
		user, password, ok := strings.Cut(string(text), ":")
		if !ok || user == "" {
			return secret{}, errors.New("auth is not USER:PASSWORD")
		}
		s.user, s.password = user, strings.TrimRight(password, "\x00")
	}
	return s.check()
}

// check refuses secrets that cannot be sent in a header.
func (s secret) check() (secret, error) {
	for _, v := range []string{s.user, s.password, s.identity, s.bearer} {
		if len(v) > maxSecret {
			return secret{}, fmt.Errorf("a secret is larger than %d bytes", maxSecret)
		}
	}
	if s.bearer != "" && !validToken(s.bearer) {
		return secret{}, errors.New("the registry token holds characters that tokens cannot have")
	}
	return s, nil
}

func helperServer(host string) string {
	if host == config.HubHost {
		return hubServer
	}
	return host
}

var helperName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$`)

// helper asks a credential helper, docker-credential-NAME, for a secret
// (github.com/docker/docker-credential-helpers, "get").
func (c *Client) helper(ctx context.Context, name, server string) (secret, error) {
	fail := func(err error) (secret, error) {
		return secret{}, fmt.Errorf("asking credential helper %q about %q: %w", name, server, err)
	}
	if !helperName.MatchString(name) {
		return fail(errors.New("a helper's name holds letters, digits and . _ - only"))
	}
	limit := c.Timeouts.withDefaults().Helper
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out := &capped{limit: maxHelper}
	cmd := exec.CommandContext(ctx, "docker-credential-"+name, "get")
	cmd.Stdin = strings.NewReader(server + "\n")
	cmd.Stdout = out
	cmd.WaitDelay = time.Second // a grandchild may hold the pipe
	err := cmd.Run()
	text := strings.TrimSpace(out.buf.String())
	switch {
	case out.over:
		return fail(fmt.Errorf("its answer is larger than %d bytes", maxHelper))
	case ctx.Err() != nil:
		return fail(fmt.Errorf("no answer within %s", limit))
	case err != nil && strings.Contains(text, "credentials not found"):
		return secret{}, nil
	case err != nil:
		return fail(fmt.Errorf("%w: %.200q", err, text))
	}
	var v struct{ Username, Secret string }
	if err := json.Unmarshal(out.buf.Bytes(), &v); err != nil {
		return fail(errors.New("its answer is not the JSON that is expected"))
	}
	s := secret{user: v.Username, password: v.Secret}
	if v.Username == "<token>" {
		s = secret{identity: v.Secret}
	}
	if s, err = s.check(); err != nil {
		return fail(err)
	}
	return s, nil
}

// capped keeps at most limit bytes and fails the writer after them.
// Its buffer is no embedded member, for io.Copy would find ReadFrom.
type capped struct {
	buf   bytes.Buffer
	limit int
	over  bool
}

func (c *capped) Write(p []byte) (int, error) {
	if c.buf.Len()+len(p) > c.limit {
		c.over = true
		return 0, io.ErrShortWrite
	}
	return c.buf.Write(p)
}

package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	maxTokenBody  = 1 << 20
	maxTokens     = 256
	maxTokenLife  = time.Hour
	leastLife     = time.Minute // what a token without expires_in lives
	expiryMargin  = 5 * time.Second
	maxAuthRounds = 2 // challenges answered for one request
)

// tokenKey says what an Authorization is good for.
type tokenKey struct {
	origin, repository string
}

// token is an Authorization header's value.
type token struct {
	header  string
	expires time.Time
}

func (c *Client) cachedToken(k tokenKey) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.tokens[k]
	if !ok || time.Now().After(t.expires) {
		delete(c.tokens, k)
		return ""
	}
	return t.header
}

func (c *Client) keepToken(k tokenKey, t token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tokens == nil || len(c.tokens) >= maxTokens {
		c.tokens = map[tokenKey]token{}
	}
	c.tokens[k] = t
}

func (c *Client) dropToken(k tokenKey, header string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tokens[k].header == header {
		delete(c.tokens, k)
	}
}

// authorize answers a registry's 401 with the value of Authorization for e.
// origin is the URL, of scheme and host only, that sent the challenge.
func (c *Client) authorize(ctx context.Context, e *endpoint, origin string, header http.Header) (string, error) {
	s, ignored := c.secret(ctx, e)
	fail := func(err error) (string, error) {
		return "", &AuthError{Registry: e.host, Had: !s.empty(), Ignored: ignored, Cause: err}
	}
	challenges, err := parseChallenges(header.Values("WWW-Authenticate"))
	if err != nil {
		return fail(err)
	}
	key := tokenKey{origin, e.repository}
	var offered []string
	var basic bool
	for _, ch := range challenges {
		offered = append(offered, ch.scheme)
		switch ch.scheme {
		case "bearer":
			t, err := c.bearer(ctx, e, ch, s)
			var status *StatusError
			switch {
			case errors.As(err, &status) && errors.Is(err, ErrUnauthorized):
				return fail(err)
			case err != nil:
				return "", &tokenError{e.host + "/" + e.repository, err}
			}
			c.keepToken(key, t)
			return t.header, nil
		case "basic":
			basic = true
		}
	}
	switch {
	case basic && s.user != "":
		// The scheme of the connection was allowed for this registry before
		// the first byte went out, so it is for secrets.
		h := "Basic " + base64.StdEncoding.EncodeToString([]byte(s.user+":"+s.password))
		c.keepToken(key, token{h, time.Now().Add(maxTokenLife)})
		return h, nil
	case basic:
		return fail(nil)
	case len(offered) == 0:
		return fail(errors.New("it does not say how to authenticate"))
	}
	return fail(fmt.Errorf("it offers only %.100q, of which none is supported", strings.Join(offered, ", ")))
}

// tokenError is trouble with a token server. It does not unwrap to its cause,
// which was retried here and says nothing about the registry: not that it should
// be asked again, nor over http.
type tokenError struct {
	repository string
	err        error
}

func (e *tokenError) Error() string {
	return fmt.Sprintf("getting a token for %q: %v", e.repository, e.err)
}
func (e *tokenError) Is(target error) bool { return target != ErrNotFound && errors.Is(e.err, target) }

// bearer gets a token from the server that a challenge names.
func (c *Client) bearer(ctx context.Context, e *endpoint, ch challenge, s secret) (token, error) {
	if s.bearer != "" {
		return token{"Bearer " + s.bearer, time.Now().Add(maxTokenLife)}, nil
	}
	realm, err := c.realm(e, ch.params["realm"])
	if err != nil {
		return token{}, err
	}
	// The scope is ours, not the challenge's: no more rights than are needed.
	scope := "repository:" + e.repository + ":pull"
	query := url.Values{"scope": {scope}}
	if v := ch.params["service"]; v != "" {
		query.Set("service", v)
	}
	var body []byte
	err = c.retry(ctx, e, func() error {
		body, err = c.askToken(ctx, e, realm, query, s)
		return err
	})
	if err != nil {
		return token{}, err
	}
	return parseToken(body)
}

// realm checks the URL of a token server, which the registry chooses.
func (c *Client) realm(e *endpoint, text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return nil, errors.New("the registry names no token server (realm)")
	case err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("the registry names a token server that is no URL of https: %.200q", text)
	case u.Scheme == "http" && !c.InsecureHTTP && !c.insecureHost(e, u.Host):
		return nil, fmt.Errorf("the registry names a token server with plain http, %q, which is not allowed", u.Redacted())
	}
	u.Fragment = ""
	return u, nil
}

func (c *Client) askToken(ctx context.Context, e *endpoint, realm *url.URL, query url.Values, s secret) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, e.timeouts.Document)
	defer cancel()
	u := *realm
	var req *http.Request
	var err error
	if s.identity != "" {
		// RFC 6749, 6, as the distribution token server has it.
		query = cloneValues(query)
		query.Set("grant_type", "refresh_token")
		query.Set("refresh_token", s.identity)
		query.Set("client_id", "rkt")
		req, err = http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(query.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
	} else {
		q := u.Query()
		for k, v := range query {
			q[k] = v
		}
		u.RawQuery = q.Encode()
		req, err = http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err == nil && s.user != "" {
			req.SetBasicAuth(s.user, s.password)
		}
	}
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.userAgent())
	t, err := c.transport(e, u.Host)
	if err != nil {
		return nil, err
	}
	// No redirects: secrets went into this request, and token servers have none.
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, transfer(fmt.Errorf("asking token server %q: %w", realm.Redacted(), err))
	}
	defer resp.Body.Close()
	shown := &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(req.Method, shown, resp)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenBody+1))
	switch {
	case err != nil:
		return nil, transfer(fmt.Errorf("reading the answer of token server %q: %w", shown, err))
	case len(body) > maxTokenBody:
		return nil, fmt.Errorf("the answer of token server %q is larger than %d bytes", shown, maxTokenBody)
	}
	return body, nil
}

func cloneValues(v url.Values) url.Values { return url.Values(http.Header(v).Clone()) }

func parseToken(body []byte) (token, error) {
	var v struct {
		Token       string  `json:"token"`
		AccessToken string  `json:"access_token"`
		ExpiresIn   float64 `json:"expires_in"`
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return token{}, errors.New("the token server's answer is not the JSON that is expected")
	}
	if v.Token == "" {
		v.Token = v.AccessToken
	}
	switch {
	case v.Token == "":
		return token{}, errors.New("the token server's answer holds no token")
	case len(v.Token) > maxSecret || !validToken(v.Token):
		return token{}, errors.New("the token server's answer holds a malformed token")
	}
	life := leastLife
	if v.ExpiresIn > leastLife.Seconds() {
		life = maxTokenLife
		if v.ExpiresIn < maxTokenLife.Seconds() {
			life = time.Duration(v.ExpiresIn * float64(time.Second))
		}
	}
	return token{"Bearer " + v.Token, time.Now().Add(life - expiryMargin)}, nil
}

// validToken checks the characters of RFC 6750, 2.1, and a few that are seen.
func validToken(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' || r == ',' }) < 0
}

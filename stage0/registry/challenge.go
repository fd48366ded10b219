package registry

import (
	"errors"
	"fmt"
	"strings"
)

// Limits on WWW-Authenticate.
const (
	maxChallengeText = 16 << 10
	maxChallenges    = 16
	maxParams        = 32
)

// challenge is one way to authenticate that a server offers.
type challenge struct {
	scheme string            // lower case
	params map[string]string // names in lower case
}

// parseChallenges parses the values of WWW-Authenticate (RFC 9110, 11.6.1): a
// comma separates both challenges and the parameters of one.
func parseChallenges(values []string) ([]challenge, error) {
	var all []challenge
	total := 0
	for _, v := range values {
		if total += len(v); total > maxChallengeText {
			return nil, fmt.Errorf("WWW-Authenticate is longer than %d bytes", maxChallengeText)
		}
		p := &challengeParser{rest: v, out: all}
		if err := p.parse(); err != nil {
			return nil, fmt.Errorf("bad WWW-Authenticate %.200q: %w", v, err)
		}
		all = p.out
	}
	return all, nil
}

type challengeParser struct {
	rest string
	out  []challenge
}

func (p *challengeParser) parse() error {
	for {
		p.skip(" \t,")
		if p.rest == "" {
			return nil
		}
		word := p.token()
		if word == "" {
			return errors.New("a word is expected")
		}
		blank := p.skip(" \t")
		if strings.HasPrefix(p.rest, "=") && len(p.out) > 0 && !blank {
			if err := p.param(word); err != nil {
				return err
			}
			continue
		}
		if err := p.begin(word); err != nil {
			return err
		}
	}
}

// begin starts a challenge: a scheme, then nothing, a parameter or a token68.
func (p *challengeParser) begin(scheme string) error {
	if len(p.out) == maxChallenges {
		return fmt.Errorf("more than %d challenges", maxChallenges)
	}
	p.out = append(p.out, challenge{scheme: strings.ToLower(scheme), params: map[string]string{}})
	if p.rest == "" || p.rest[0] == ',' {
		return nil
	}
	mark := p.rest
	word := p.token()
	if value, ok := strings.CutPrefix(p.rest, "="); ok && word != "" && value != "" && !strings.ContainsAny(value[:1], "= \t,") {
		return p.param(word)
	}
	// A token68, which no scheme of ours has.
	p.rest = strings.TrimLeft(mark, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=")
	if len(p.rest) == len(mark) || p.rest != "" && !strings.ContainsAny(p.rest[:1], " \t,") {
		return errors.New("a parameter is expected")
	}
	return nil
}

// param reads the value after a parameter's name.
func (p *challengeParser) param(name string) error {
	p.rest = p.rest[1:]
	value := ""
	if strings.HasPrefix(p.rest, `"`) {
		var err error
		if value, err = p.quoted(); err != nil {
			return err
		}
	} else if value = p.token(); value == "" {
		return fmt.Errorf("the parameter %.50q has no value", name)
	}
	if p.rest != "" && !strings.ContainsAny(p.rest[:1], " \t,") {
		return fmt.Errorf("rubbish after the parameter %.50q", name)
	}
	c := p.out[len(p.out)-1]
	name = strings.ToLower(name)
	if _, twice := c.params[name]; twice {
		return fmt.Errorf("the parameter %.50q is given twice", name)
	}
	if len(c.params) == maxParams {
		return fmt.Errorf("more than %d parameters", maxParams)
	}
	c.params[name] = value
	return nil
}

func (p *challengeParser) quoted() (string, error) {
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		ch := p.rest[i]
		if ch == '"' {
			p.rest = p.rest[i+1:]
			return b.String(), nil
		}
		if ch == '\\' && i+1 < len(p.rest) {
			i++
			ch = p.rest[i]
		}
		if ch < ' ' && ch != '\t' || ch == 0x7f {
			return "", errors.New("a control character")
		}
		b.WriteByte(ch)
	}
	return "", errors.New("a quotation mark is missing")
}

func (p *challengeParser) skip(set string) bool {
	before := len(p.rest)
	p.rest = strings.TrimLeft(p.rest, set)
	return len(p.rest) < before
}

// token takes the characters of a token (RFC 9110, 5.6.2).
func (p *challengeParser) token() string {
	i := 0
	for i < len(p.rest) && isTokenByte(p.rest[i]) {
		i++
	}
	t := p.rest[:i]
	p.rest = p.rest[i:]
	return t
}

func isTokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

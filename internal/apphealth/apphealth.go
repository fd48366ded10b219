// Package apphealth says how the health of an app is found out, and carries
// that from stage0 to stage1 in an annotation of the app. The same comes from
// the HEALTHCHECK of an image that was converted.
//
// The generator links it by way of podfile: no fmt, no encoding/json.
package apphealth

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
)

// Annotation holds the check of an app in a pod manifest, a JSON object;
// AnnotationReady with the value "healthy" has the pod ready only when its apps
// are healthy.
const (
	Annotation      = "coreos.com/rkt/stage2/health"
	AnnotationReady = "coreos.com/rkt/stage2/ready"
	ReadyHealthy    = "healthy"
)

// What is done with an app that is found unhealthy.
const (
	ActionNone       = "none"
	ActionRestartApp = "restart-app"
	ActionRestartPod = "restart-pod"
)

// Limits of a check.
const (
	MinTime    = 100 * time.Millisecond
	MaxTime    = 24 * time.Hour
	MaxRetries = 1000
	maxArgs    = 1024
	maxPath    = 2048
)

// Check says how to look at an app. A field that is zero has its default; one
// without a kind takes that of the image.
type Check struct {
	// None: there is no check, whatever the image says.
	None bool
	// One of these is the kind: a command of the app, a URL, [ADDRESS:]PORT, or
	// what the app itself tells systemd.
	Exec   []string
	HTTP   string
	TCP    string
	Notify bool

	Interval, Timeout, StartPeriod, StartInterval time.Duration
	Retries                                       int
	Action                                        string
}

// HasKind reports whether the check says how to look.
func (c *Check) HasKind() bool { return len(c.Exec) > 0 || c.HTTP != "" || c.TCP != "" || c.Notify }

// Complete takes what c leaves out from the image's check, which may be nil, and
// then the defaults.
func (c Check) Complete(image *Check) Check {
	if image != nil && !c.HasKind() {
		c.None = c.None || image.None
		c.Exec, c.HTTP, c.TCP, c.Notify = image.Exec, image.HTTP, image.TCP, image.Notify
		for _, d := range []struct {
			have  *time.Duration
			image time.Duration
		}{{&c.Interval, image.Interval}, {&c.Timeout, image.Timeout}, {&c.StartPeriod, image.StartPeriod}, {&c.StartInterval, image.StartInterval}} {
			if *d.have == 0 {
				*d.have = d.image
			}
		}
		if c.Retries == 0 {
			c.Retries = image.Retries
		}
	}
	for _, d := range []struct {
		have *time.Duration
		def  time.Duration
	}{{&c.Interval, 30 * time.Second}, {&c.Timeout, 30 * time.Second}, {&c.StartInterval, 5 * time.Second}} {
		if *d.have == 0 {
			*d.have = d.def
		}
	}
	if c.Retries == 0 {
		c.Retries = 3
	}
	if c.Action == "" {
		c.Action = ActionNone
	}
	return c
}

// Target is where a check connects.
type Target struct {
	// Host is an address, "" for the pod's own, IPv4 or IPv6.
	Host string
	Port uint16
	// Path is what to get, for HTTP.
	Path string
}

// ParseTCP reads "PORT", ":PORT", "ADDRESS:PORT".
func ParseTCP(s string) (Target, error) {
	if s != "" && strings.Trim(s, "0123456789") == "" {
		s = ":" + s
	}
	return address(s, "")
}

// ParseHTTP reads "http://[ADDRESS][:PORT][/PATH]".
func ParseHTTP(s string) (Target, error) {
	rest, ok := strings.CutPrefix(s, "http://")
	if strings.HasPrefix(s, "https://") {
		return Target{}, errors.New("https is not spoken; use exec with a program of the image")
	}
	if !ok || rest == "" || len(s) > maxPath {
		return Target{}, errors.New("want http://[ADDRESS]:PORT/PATH")
	}
	at, path := rest, "/"
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		at, path = rest[:i], rest[i:]
	}
	if path[0] != '/' || strings.ContainsRune(path, '#') || strings.IndexFunc(path, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
		return Target{}, errors.New("the path begins with \"/\" and has printable ASCII characters only, others escaped")
	}
	t, err := address(at, "80")
	t.Path = path
	return t, err
}

func address(s, port string) (Target, error) {
	host := s
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Target{}, errors.New("it names no port from 1 to 65535")
	}
	if in, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(in, "]") {
		host = strings.TrimSuffix(in, "]")
	}
	if host == "localhost" {
		host = ""
	}
	if host != "" {
		if a, err := netip.ParseAddr(host); err != nil || a.Zone() != "" {
			return Target{}, errors.New("the host is neither empty (the pod itself), localhost, nor an address")
		}
	}
	return Target{Host: host, Port: uint16(n)}, nil
}

// Validate says what is wrong with a check, "" if nothing.
func (c *Check) Validate() string {
	kinds := 0
	for _, has := range []bool{len(c.Exec) > 0, c.HTTP != "", c.TCP != "", c.Notify} {
		if has {
			kinds++
		}
	}
	var err error
	switch {
	case kinds > 1:
		return "has more than one of exec, http, tcp and notify"
	case c.None && (kinds > 0 || c.Interval|c.Timeout|c.StartPeriod|c.StartInterval != 0 || c.Retries != 0 || c.Action != ""):
		return "is none, and yet says more"
	case len(c.Exec) > 0 && c.Exec[0] == "" || len(c.Exec) > maxArgs:
		return "exec names no program, or has more than 1024 arguments"
	case c.HTTP != "":
		_, err = ParseHTTP(c.HTTP)
	case c.TCP != "":
		_, err = ParseTCP(c.TCP)
	}
	if err != nil {
		return err.Error()
	}
	for _, a := range c.Exec {
		if strings.IndexByte(a, 0) >= 0 {
			return "exec has a NUL character"
		}
	}
	for _, d := range []time.Duration{c.Interval, c.Timeout, c.StartInterval} {
		if d != 0 && (d < MinTime || d > MaxTime) {
			return "interval, timeout and startInterval are from 100ms to 24h"
		}
	}
	if c.StartPeriod < 0 || c.StartPeriod > MaxTime {
		return "startPeriod is at most 24h"
	}
	if c.Retries < 0 || c.Retries > MaxRetries {
		return "retries is from 1 to 1000"
	}
	switch c.Action {
	case "", ActionNone, ActionRestartApp, ActionRestartPod:
		return ""
	}
	return "action is none, restart-app or restart-pod"
}

// Encode makes the value of the annotation.
func Encode(c *Check) string {
	o := jsonpos.Value{Kind: jsonpos.Object}
	add := func(key string, v *jsonpos.Value) { o.Members = append(o.Members, jsonpos.Member{Key: key, Value: v}) }
	text := func(key, s string) {
		if s != "" {
			add(key, &jsonpos.Value{Kind: jsonpos.String, Text: s})
		}
	}
	number := func(key string, n int64) {
		if n != 0 {
			add(key, &jsonpos.Value{Kind: jsonpos.Number, Text: strconv.FormatInt(n, 10)})
		}
	}
	flag := func(key string, b bool) {
		if b {
			add(key, &jsonpos.Value{Kind: jsonpos.Bool, Bool: true})
		}
	}
	flag("none", c.None)
	if len(c.Exec) > 0 {
		list := &jsonpos.Value{Kind: jsonpos.Array}
		for _, a := range c.Exec {
			list.Items = append(list.Items, &jsonpos.Value{Kind: jsonpos.String, Text: a})
		}
		add("exec", list)
	}
	text("http", c.HTTP)
	text("tcp", c.TCP)
	flag("notify", c.Notify)
	number("interval", int64(c.Interval))
	number("timeout", int64(c.Timeout))
	number("startPeriod", int64(c.StartPeriod))
	number("startInterval", int64(c.StartInterval))
	number("retries", int64(c.Retries))
	text("action", c.Action)
	return string(o.AppendJSON(nil))
}

// Decode is the inverse of Encode. The value may come from anybody's manifest.
func Decode(s string) (*Check, error) {
	bad := errors.New("annotation " + Annotation + ": it is no health check")
	v, problems := jsonpos.Decode("", []byte(s))
	if v == nil || len(problems) > 0 || v.Kind != jsonpos.Object {
		return nil, bad
	}
	c := &Check{}
	for _, m := range v.Members {
		x := m.Value
		n, _ := strconv.ParseInt(x.Text, 10, 64)
		kind := jsonpos.Number
		switch m.Key {
		case "none":
			c.None, kind = x.Bool, jsonpos.Bool
		case "notify":
			c.Notify, kind = x.Bool, jsonpos.Bool
		case "exec":
			kind = jsonpos.Array
			for _, it := range x.Items {
				if it.Kind != jsonpos.String {
					return nil, bad
				}
				c.Exec = append(c.Exec, it.Text)
			}
		case "http":
			c.HTTP, kind = x.Text, jsonpos.String
		case "tcp":
			c.TCP, kind = x.Text, jsonpos.String
		case "action":
			c.Action, kind = x.Text, jsonpos.String
		case "interval":
			c.Interval = time.Duration(n)
		case "timeout":
			c.Timeout = time.Duration(n)
		case "startPeriod":
			c.StartPeriod = time.Duration(n)
		case "startInterval":
			c.StartInterval = time.Duration(n)
		case "retries":
			c.Retries = int(n)
		default:
			return nil, bad
		}
		if x.Kind != kind {
			return nil, bad
		}
	}
	if msg := c.Validate(); msg != "" {
		return nil, errors.New("annotation " + Annotation + ": " + msg)
	}
	return c, nil
}

// FromImage reads the HEALTHCHECK of a converted image, the configuration's
// Healthcheck; nil if it has none. What is out of bounds is brought into them.
func FromImage(text string) (*Check, error) {
	v, problems := jsonpos.Decode("", []byte(text))
	if v == nil || len(problems) > 0 || v.Kind != jsonpos.Object {
		return nil, errors.New("the image's health check is no JSON object")
	}
	var test []string
	if t := v.Member("Test"); t != nil {
		for _, it := range t.Items {
			if it.Kind != jsonpos.String {
				return nil, errors.New("the image's health check is no list of words")
			}
			test = append(test, it.Text)
		}
	}
	c := &Check{}
	switch {
	case len(test) == 0 || test[0] == "":
		return nil, nil
	case test[0] == "NONE":
		return &Check{None: true}, nil
	case test[0] == "CMD" && len(test) > 1:
		c.Exec = test[1:]
	case test[0] == "CMD-SHELL" && len(test) == 2:
		c.Exec = []string{"/bin/sh", "-c", test[1]}
	default:
		return nil, errors.New("the image's health check is neither NONE, CMD nor CMD-SHELL with a command")
	}
	for _, d := range []struct {
		to  *time.Duration
		key string
		min time.Duration
	}{{&c.Interval, "Interval", MinTime}, {&c.Timeout, "Timeout", MinTime}, {&c.StartPeriod, "StartPeriod", 0}, {&c.StartInterval, "StartInterval", MinTime}} {
		if n := integer(v.Member(d.key)); n > 0 {
			*d.to = min(max(time.Duration(n), d.min), MaxTime)
		}
	}
	c.Retries = int(min(max(integer(v.Member("Retries")), 0), MaxRetries))
	if msg := c.Validate(); msg != "" {
		return nil, errors.New("the image's health check: " + msg)
	}
	return c, nil
}

func integer(v *jsonpos.Value) int64 {
	if v == nil || v.Kind != jsonpos.Number {
		return 0
	}
	n, err := strconv.ParseInt(v.Text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

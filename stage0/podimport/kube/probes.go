package kube

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// probes makes one health check of up to three.
func (p *pod) probes(c *object, a *podjson.App) {
	live, ready, startup := c.sub("livenessProbe"), c.sub("readinessProbe"), c.sub("startupProbe")
	probe := live
	if probe == nil {
		probe = ready
	}
	if probe == nil && startup != nil {
		probe = startup
	}
	if probe == nil {
		return
	}
	h := map[string]any{"interval": "10s", "timeout": "1s"}
	if !p.check(c, probe, h) {
		return
	}
	for key, name := range map[string]string{"periodSeconds": "interval", "timeoutSeconds": "timeout", "initialDelaySeconds": "startPeriod"} {
		if n, ok := probe.number(key); ok {
			h[name] = strconv.Itoa(max(n, 0)) + "s"
		}
	}
	if n, ok := probe.number("failureThreshold"); ok {
		h["retries"] = max(n, 1)
	}
	probe.ignore("successThreshold", "terminationGracePeriodSeconds")
	if probe == live {
		h["action"] = "restart-app"
	}
	if startup != nil && startup != probe {
		period, ok := startup.number("periodSeconds")
		if !ok {
			period = 10
		}
		n, ok := startup.number("failureThreshold")
		if !ok {
			n = 3
		}
		delay, _ := startup.number("initialDelaySeconds")
		h["startPeriod"] = strconv.Itoa(max(delay+period*n, 0)) + "s"
		c.note(podimport.Changed, "startupProbe", "an app has one check: the time that this one allows is the \"startPeriod\" of the other")
		p.read(startup)
	}
	if ready != nil && probe == live {
		c.note(podimport.Changed, "readinessProbe", "an app has one check, here the livenessProbe; \"ready\": \"healthy\" waits for it")
		p.read(ready)
	}
	if ready != nil {
		p.p.Rkt.Ready = "healthy"
	}
	if raw, err := json.Marshal(h); err == nil {
		a.Health = raw
	}
}

// read takes all keys of a probe that stands for nothing of its own.
func (p *pod) read(probe *object) {
	for _, k := range probe.keys {
		probe.used[k] = true
	}
}

// check is what a probe does.
func (p *pod) check(c, probe *object, h map[string]any) bool {
	if e := probe.sub("exec"); e != nil {
		h["exec"] = e.strs("command")
		return true
	}
	if t := probe.sub("tcpSocket"); t != nil {
		h["tcp"] = t.str("host")
		if h["tcp"] != "" {
			h["tcp"] = h["tcp"].(string) + ":"
		}
		h["tcp"] = h["tcp"].(string) + p.port(c, t)
		return true
	}
	if g := probe.sub("httpGet"); g != nil {
		if g.has("httpHeaders") {
			g.note(podimport.Dropped, "httpHeaders", "a check sends no headers of its own")
		}
		pth := g.str("path")
		if !strings.HasPrefix(pth, "/") {
			pth = "/" + pth
		}
		if strings.EqualFold(g.str("scheme"), "HTTPS") {
			g.note(podimport.Changed, "scheme", "https is not spoken: the check only connects; use exec with a program of the image for more")
			h["tcp"] = p.port(c, g)
			return true
		}
		h["http"] = "http://" + g.str("host") + ":" + p.port(c, g) + pth
		return true
	}
	for _, k := range probe.keys {
		probe.used[k] = true
	}
	p.c.r.Note(podimport.Dropped, probe.r.path, 0, probe.path, "there are checks by exec, httpGet and tcpSocket; use exec")
	return false
}

// port is a number, looked up by name in the container's ports.
func (p *pod) port(c, o *object) string {
	s := o.str("port")
	for _, port := range c.list("ports") {
		if port.str("name") == s {
			s = port.str("containerPort")
		}
		for _, k := range port.keys {
			port.used[k] = true
		}
	}
	return s
}

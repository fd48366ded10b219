package plan

import (
	"errors"
	"path"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/apphealth"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/unitfile"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// healthUnit looks after the health of an app.
func healthUnit(app string) string { return "health@" + app + ".service" }

// readyHealthy says that the pod is ready only when its apps are healthy.
func readyHealthy(pod *schema.PodManifest) bool {
	v, _ := pod.Annotations.Get(apphealth.AnnotationReady)
	return v == apphealth.ReadyHealthy
}

// checkOf is the health check of an app, nil if it has none: what the pod says,
// completed by what the image says.
func checkOf(ra *schema.RuntimeApp, img *schema.ImageManifest) (*apphealth.Check, error) {
	c := &apphealth.Check{}
	text, given := ra.Annotations.Get(apphealth.Annotation)
	var err error
	if given {
		if c, err = apphealth.Decode(text); err != nil {
			return nil, err
		}
	}
	var image *apphealth.Check
	if text := appc.Annotation(img, appc.AnnotationDockerHealthcheck); text != "" && appc.Converted(img) && !c.None && !c.HasKind() {
		if image, err = apphealth.FromImage(text); err != nil {
			return nil, err
		}
	}
	whole := c.Complete(image)
	switch {
	case whole.None || !whole.HasKind() && !given:
		return nil, nil
	case !whole.HasKind():
		return nil, errors.New("\"health\" has none of exec, http, tcp and notify, and the image has no health check")
	}
	return &whole, nil
}

// health says how the app's health is found out, and has the prober started with
// the app. What looks at apps of a mutable pod is not rkt.
func (p *Plan) health(in Input, ra *schema.RuntimeApp, img *schema.ImageManifest, s *launch.Spec) error {
	if in.Run.Mutable {
		return nil
	}
	c, err := checkOf(ra, img)
	if err != nil || c == nil {
		return err
	}
	h := &launch.Health{Exec: c.Exec, Interval: c.Interval, Timeout: c.Timeout, StartPeriod: c.StartPeriod, StartInterval: min(c.StartInterval, c.Interval),
		Retries: c.Retries, Action: c.Action, Ready: readyHealthy(in.Pod)}
	var t apphealth.Target
	switch {
	case c.HTTP != "":
		t, err = apphealth.ParseHTTP(c.HTTP)
	case c.TCP != "":
		t, err = apphealth.ParseTCP(c.TCP)
	case c.Notify && !s.Notify && !s.Watchdog:
		err = errors.New("its health is what it tells systemd, and it tells nothing: set Type=notify or WatchdogSec= in the app's systemd.service")
	}
	if err != nil {
		return err
	}
	h.Host, h.Port, h.Path = t.Host, t.Port, t.Path
	if h.Action == launch.RestartApp {
		// a status that it has when it is stopped for that must not end the pod
		s.Restarts = true
	}
	s.Health = h
	if h.Ready {
		// Without the prober nobody would know that the app is not healthy.
		u := unitfile.New("rkt stage1")
		u.Add("Unit", "FailureAction", "exit")
		u.Add("Unit", "FailureActionExitStatus", "254")
		u.Add("Service", "Restart", "no")
		b, err := u.Bytes()
		if err != nil {
			return err
		}
		p.file(path.Join(podfs.UnitDir, healthUnit(s.Name)+".d", "10-rkt.conf"), 0o644, b)
	}
	return nil
}

// healths are the units for whose start the pod waits.
func (p *Plan) healths(in Input) []string {
	var out []string
	for i := range p.Apps {
		if h := p.Apps[i].Health; h != nil && h.Ready {
			out = append(out, healthUnit(p.Apps[i].Name))
		}
	}
	if len(out) == 0 && readyHealthy(in.Pod) {
		p.warn("the pod is to be ready when its apps are healthy, and none has a health check: it is ready when they have started")
	}
	return out
}

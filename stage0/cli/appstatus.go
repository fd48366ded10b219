package cli

import (
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/stage0/pod"
)

// The states of an app.
const (
	appUnknown = "unknown"
	appCreated = "created"
	appRunning = "running"
	appExited  = "exited"
)

// appInfo is the status of an app. Times are nanoseconds since 1970.
type appInfo struct {
	Name            string            `json:"name"`
	State           string            `json:"state"`
	CreatedAt       *int64            `json:"created_at,omitempty"`
	StartedAt       *int64            `json:"started_at,omitempty"`
	FinishedAt      *int64            `json:"finished_at,omitempty"`
	ExitCode        *int              `json:"exit_code,omitempty"`
	ImageID         string            `json:"image_id"`
	Health          *healthInfo       `json:"health,omitempty"`
	Mounts          []appMount        `json:"mounts,omitempty"`
	UserAnnotations map[string]string `json:"user_annotations,omitempty"`
	UserLabels      map[string]string `json:"user_labels,omitempty"`
}

type appMount struct {
	Name          string `json:"name"`
	ContainerPath string `json:"container_path"`
	HostPath      string `json:"host_path"`
	ReadOnly      bool   `json:"read_only"`
}

// healthInfo is the health of an app that has a check, while it runs.
type healthInfo struct {
	State  string `json:"state"`
	Since  int64  `json:"since"`
	Output string `json:"output,omitempty"`
}

func healthOf(d *pod.Pod, app string) *healthInfo {
	h, ok := d.AppHealth(app)
	if !ok {
		return nil
	}
	return &healthInfo{h.State, h.Since.UnixNano(), h.Output}
}

// appStatus looks at an app. In a mutable pod the app's own files tell; in
// others apps live as long as the pod. ra may be nil: then only the state and
// the times are told.
func appStatus(d *pod.Pod, ra *schema.RuntimeApp, name string, mutable bool) appInfo {
	i := appInfo{Name: name}
	code, ended := d.ExitStatus(name)
	if ended {
		i.ExitCode = &code
	}
	if mutable {
		created, started, finished := d.AppTimes(name)
		if ended = !finished.IsZero(); ended && i.ExitCode == nil {
			one := 1 // a status nobody can read is no success
			i.ExitCode = &one
		}
		i.CreatedAt, i.StartedAt, i.FinishedAt = nanos(created), nanos(started), nanos(finished)
		switch {
		case ended, d.State.AfterRun():
			i.State = appExited
			if !ended {
				i.FinishedAt = nanos(d.Marked())
			}
		case created.IsZero():
			i.State = appUnknown
		case started.IsZero():
			i.State = appCreated
		default:
			i.State = appRunning
		}
	} else {
		i.CreatedAt, i.StartedAt, i.FinishedAt = nanos(d.Created()), nanos(d.Started()), nanos(d.Marked())
		switch {
		case ended, d.State.AfterRun():
			i.State = appExited
		case d.State == pod.Running:
			i.State = appRunning
		case d.State == pod.Prepared:
			i.State = appCreated
		default:
			i.State = appUnknown
		}
	}
	if i.State == appRunning {
		i.Health = healthOf(d, name)
	}
	if ra == nil {
		return i
	}
	i.ImageID = ra.Image.ID.String()
	if ra.App != nil {
		i.UserAnnotations, i.UserLabels = ra.App.UserAnnotations, ra.App.UserLabels
	}
	return i
}

// withMounts adds where volumes are mounted in the app.
func (i *appInfo) withMounts(d *pod.Pod, m *schema.PodManifest, ra *schema.RuntimeApp) {
	for _, x := range ra.Mounts {
		v := x.AppVolume
		for n := range m.Volumes {
			if v == nil && m.Volumes[n].Name == x.Volume {
				v = &m.Volumes[n]
			}
		}
		if v == nil {
			continue
		}
		out := appMount{Name: v.Name.String(), ContainerPath: path.Clean("/" + x.Path), HostPath: v.Source, ReadOnly: v.ReadOnly != nil && *v.ReadOnly}
		if v.Kind == "empty" {
			out.HostPath = filepath.Join(d.Dir(), podfs.SharedVolumes, v.Name.String())
		}
		i.Mounts = append(i.Mounts, out)
	}
}

func (i *appInfo) print(w io.Writer) error {
	var b strings.Builder
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s=%s\n", key, value)
		}
	}
	at := func(ns *int64) string {
		if ns == nil {
			return ""
		}
		return time.Unix(0, *ns).Format(timeLayout)
	}
	pairs := func(m map[string]string) string {
		var out []string
		for _, k := range slices.Sorted(maps.Keys(m)) {
			out = append(out, k+":"+m[k])
		}
		return strings.Join(out, ",")
	}
	line("name", i.Name)
	line("state", i.State)
	line("image_id", i.ImageID)
	line("created_at", at(i.CreatedAt))
	line("started_at", at(i.StartedAt))
	line("finished_at", at(i.FinishedAt))
	if i.Health != nil {
		line("health", i.Health.State)
	}
	if i.ExitCode != nil {
		line("exit_code", fmt.Sprint(*i.ExitCode))
	}
	var mounts []string
	for _, m := range i.Mounts {
		mounts = append(mounts, fmt.Sprintf("%s:%s:(read_only:%t)", m.HostPath, m.ContainerPath, m.ReadOnly))
	}
	line("mounts", strings.Join(mounts, ","))
	line("user_annotations", pairs(i.UserAnnotations))
	line("user_labels", pairs(i.UserLabels))
	_, err := io.WriteString(w, b.String())
	return err
}

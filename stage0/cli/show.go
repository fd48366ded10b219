package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/appc/spec/schema"
	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/stage0/pod"
	"github.com/rkt-systemd/rkt/stage0/prepare"
)

// timeLayout is what scripts parse: milliseconds, trailing zeros dropped.
const timeLayout = "2006-01-02 15:04:05.999 -0700 MST"

// podJSON is a pod in the output of list and status.
type podJSON struct {
	Name            string            `json:"name"`
	State           string            `json:"state"`
	DeclaredName    string            `json:"declared_name,omitempty"`
	Machine         string            `json:"machine,omitempty"`
	Unit            string            `json:"unit,omitempty"`
	Networks        []podfs.Network   `json:"networks,omitempty"`
	Ports           []portJSON        `json:"ports,omitempty"`
	PrivateUsers    string            `json:"private_users,omitempty"`
	AppNames        []string          `json:"app_names,omitempty"`
	Apps            []appInfo         `json:"apps,omitempty"`
	CreatedAt       int64             `json:"created_at,omitempty"`
	StartedAt       int64             `json:"started_at,omitempty"`
	UserAnnotations map[string]string `json:"user_annotations,omitempty"`
	UserLabels      map[string]string `json:"user_labels,omitempty"`
}

func newPodJSON(d *pod.Pod, m *schema.PodManifest) podJSON {
	p := podJSON{Name: d.UUID, State: string(d.State), DeclaredName: d.DeclaredName(), Unit: d.Unit(), Networks: d.Networks(),
		PrivateUsers: d.PrivateUsers()}
	if d.State.Ran() {
		p.Machine = d.Machine()
	}
	if t := d.Created(); !t.IsZero() {
		p.CreatedAt = t.Unix()
	}
	if t := d.Started(); !t.IsZero() {
		p.StartedAt = t.Unix()
	}
	if m == nil {
		return p
	}
	p.UserAnnotations, p.UserLabels = m.UserAnnotations, m.UserLabels
	p.Ports = portsOf(m, p.Networks)
	for i := range m.Apps {
		ra := &m.Apps[i]
		name := ra.Name.String()
		p.AppNames = append(p.AppNames, name)
		j := appStatus(d, ra, name, prepare.Mutable(m))
		p.Apps = append(p.Apps, j)
	}
	return p
}

func nanos(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	n := t.UnixNano()
	return &n
}

func printJSON(w io.Writer, format string, v any) error {
	e := json.NewEncoder(w)
	if format == "json-pretty" {
		e.SetIndent("", "\t")
	}
	return e.Encode(v)
}

func checkFormat(format string) error {
	switch format {
	case "", "json", "json-pretty":
		return nil
	}
	return fmt.Errorf("unknown format %q: json and json-pretty are known", format)
}

func table(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 8, 1, '\t', 0) }

func (a *app) listCmd() *cobra.Command {
	var full, noLegend bool
	var format string
	cmd := &cobra.Command{
		Use: "list", Short: "List pods", Args: exactArgs(0, "no arguments"),
		Long: "List pods: running, prepared, and ended ones until they are collected.",
		RunE: func(*cobra.Command, []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			pods, _, err := a.pods()
			if err != nil {
				return err
			}
			all, err := pods.List()
			if err != nil && len(all) == 0 {
				return err
			}
			errs := []error{err}
			out := []podJSON{}
			w := table(a.Stdout)
			if !noLegend && format == "" {
				id, users := "", ""
				if full {
					id, users = "IMAGE ID\t", "\tPRIVATE USERS"
				}
				fmt.Fprintf(w, "UUID\tAPP\tIMAGE NAME\t%sSTATE\tCREATED\tSTARTED\tNETWORKS%s\n", id, users)
			}
			seen := newManifests()
			for _, d := range all {
				m, err := seen.pod(d)
				if err != nil && d.State != pod.Preparing && d.State != pod.AbortedPrepare {
					errs = append(errs, err)
				}
				if format != "" {
					out = append(out, newPodJSON(d, m))
				} else {
					row(w, d, m, seen, full)
				}
				d.Close()
			}
			if format != "" {
				err = printJSON(a.Stdout, format, out)
			} else {
				err = w.Flush()
			}
			a.itemErrors(errs)
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&full, "full", false, "whole UUIDs, image IDs and absolute times")
	f.BoolVar(&noLegend, "no-legend", false, "no header line")
	f.StringVar(&format, "format", "", "`json` or json-pretty instead of a table")
	return cmd
}

// itemErrors reports what is wrong with single items of a listing, after the
// good ones.
func (a *app) itemErrors(errs []error) {
	err := errors.Join(errs...)
	if err == nil {
		return
	}
	fmt.Fprintf(a.Stderr, "----------------------------------------\n")
	n := 0
	for _, e := range errs {
		if e != nil {
			n++
			fmt.Fprintf(a.Stderr, "%d. %v\n", n, e)
		}
	}
	fmt.Fprintf(a.Stderr, "----------------------------------------\n(appc version %s)\n", schema.AppContainerVersion)
}

// seenManifests spares a list to parse what it has parsed: pods of one unit, and
// images of many pods, are mostly the same, and parsing is most of the work.
type seenManifests struct {
	pods   map[string]*schema.PodManifest // by content
	images map[string]string              // names by image ID
}

func newManifests() *seenManifests {
	return &seenManifests{map[string]*schema.PodManifest{}, map[string]string{}}
}

func (s *seenManifests) pod(d *pod.Pod) (*schema.PodManifest, error) {
	b, err := d.ReadFile(podfs.PodManifest)
	if m, ok := s.pods[string(b)]; ok && err == nil {
		return m, nil
	}
	m, err := d.Manifest()
	if err == nil && len(s.pods) < 1000 {
		s.pods[string(b)] = m
	}
	return m, err
}

func (s *seenManifests) image(d *pod.Pod, ra *schema.RuntimeApp) string {
	id := ra.Image.ID.String()
	if name, ok := s.images[id]; ok {
		return name
	}
	img, err := d.AppImage(ra.Name.String())
	if err != nil {
		return "--"
	}
	s.images[id] = appc.DisplayName(img)
	return s.images[id]
}

func row(w io.Writer, d *pod.Pod, m *schema.PodManifest, seen *seenManifests, full bool) {
	uuid, created, started := d.UUID, "", ""
	if !full {
		uuid = uuid[:8]
	}
	if t := d.Created(); !t.IsZero() {
		created = when(t, full)
	}
	if t := d.Started(); !t.IsZero() {
		started = when(t, full)
	}
	first := fmt.Sprintf("%s\t%s\t%s\t%s", d.State, created, started, networks(d.Networks()))
	if full {
		first += "\t" + orDash(d.PrivateUsers())
	}
	id := func(s string) string {
		if full {
			return s + "\t"
		}
		return ""
	}
	if m == nil || len(m.Apps) == 0 {
		fmt.Fprintf(w, "%s\t-\t-\t%s%s\n", uuid, id("-"), first)
		return
	}
	for i := range m.Apps {
		name := seen.image(d, &m.Apps[i])
		key := m.Apps[i].Image.ID.String()
		if len(key) > 19 {
			key = key[:19]
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s%s\n", uuid, m.Apps[i].Name, name, id(key), first)
		uuid, first = "", "\t\t\t"
	}
}

func networks(all []podfs.Network) string {
	var out []string
	for _, n := range all {
		if n.IP != "" {
			out = append(out, n.NetName+":ip4="+n.IP)
		}
		if n.IP6 != "" {
			out = append(out, n.NetName+":ip6="+n.IP6)
		}
		if n.IP == "" && n.IP6 == "" {
			out = append(out, n.NetName)
		}
	}
	return strings.Join(out, ", ")
}

func when(t time.Time, full bool) string {
	if full {
		return t.Format(timeLayout)
	}
	return relative(time.Since(t))
}

// relative says how long ago something was.
func relative(d time.Duration) string {
	for _, u := range []struct {
		name string
		d    time.Duration
	}{{"year", 365 * 24 * time.Hour}, {"month", 30 * 24 * time.Hour}, {"week", 7 * 24 * time.Hour}, {"day", 24 * time.Hour},
		{"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}} {
		if n := int(d / u.d); n == 1 {
			return "1 " + u.name + " ago"
		} else if n > 1 {
			return fmt.Sprintf("%d %ss ago", n, u.name)
		}
	}
	return "now"
}

// waitFlag is --wait[=BOOL|DURATION].
type waitFlag struct {
	on    bool
	limit time.Duration // 0: none
}

func (v *waitFlag) String() string { return fmt.Sprint(v.on) }
func (v *waitFlag) Type() string   { return "duration" }
func (v *waitFlag) Set(s string) error {
	switch s {
	case "true":
		v.on, v.limit = true, 0
		return nil
	case "false", "0":
		v.on = false
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is neither a boolean nor a duration", s)
	}
	v.on, v.limit = d != 0, max(d, 0)
	return nil
}

func (v *waitFlag) context(ctx context.Context) (context.Context, context.CancelFunc) {
	if v.limit > 0 {
		return context.WithTimeout(ctx, v.limit)
	}
	return context.WithCancel(ctx)
}

func (a *app) statusCmd() *cobra.Command {
	var format, uuidFile string
	var wait, ready waitFlag
	cmd := &cobra.Command{
		Use: "status UUID|NAME", Short: "Print the status of a pod",
		Long: `Print what is known of a pod: its state and, when it has ended, the exit status of every app.
--wait-ready waits until the pod is up, --wait until it has ended.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			d, err := a.onePod(cmd, args, uuidFile)
			if err != nil {
				return err
			}
			defer func() { d.Close() }()
			if ready.on {
				ctx, cancel := ready.context(cmd.Context())
				defer cancel()
				if err := waitReady(ctx, d); err != nil {
					return err
				}
			}
			if wait.on {
				ctx, cancel := wait.context(cmd.Context())
				defer cancel()
				if err := poll(ctx, d, func() (bool, error) { return d.State.Finished(), nil }); err != nil {
					return fmt.Errorf("waiting for pod %s to end: %w", d.UUID, err)
				}
			}
			return a.printStatus(d, format)
		},
	}
	f := cmd.Flags()
	f.StringVar(&format, "format", "", "`json` or json-pretty instead of lines")
	f.StringVar(&uuidFile, "uuid-file", "", "read the pod's UUID from this `FILE`")
	f.Var(&wait, "wait", "wait until the pod has ended, at most this long")
	f.Var(&ready, "wait-ready", "wait until the pod is up, at most this long")
	f.Lookup("wait").NoOptDefVal = "true"
	f.Lookup("wait-ready").NoOptDefVal = "true"
	return cmd
}

func waitReady(ctx context.Context, d *pod.Pod) error {
	err := poll(ctx, d, func() (bool, error) {
		if d.Ready() {
			return true, nil
		}
		if d.State.Finished() {
			return false, fmt.Errorf("it has ended: %s", d.State)
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for pod %s to be ready: %w", d.UUID, err)
	}
	return nil
}

// poll looks at the pod every 100 ms, as the contract says.
func poll(ctx context.Context, d *pod.Pod, done func() (bool, error)) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := d.Refresh(); err != nil {
			return err
		}
	}
}

func (a *app) printStatus(d *pod.Pod, format string) error {
	m, err := d.Manifest()
	if format != "" {
		return printJSON(a.Stdout, format, newPodJSON(d, m))
	}
	w := a.Stdout
	fmt.Fprintf(w, "state=%s\n", d.State)
	fmt.Fprintf(w, "created=%s\n", d.Created().Format(timeLayout))
	if t := d.Started(); !t.IsZero() {
		fmt.Fprintf(w, "started=%s\n", t.Format(timeLayout))
	}
	if d.State == pod.Running || d.State == pod.Exited || d.State == pod.ExitedGarbage {
		nets := d.Networks()
		fmt.Fprintf(w, "networks=%s\n", networks(nets))
		if m != nil {
			for _, p := range portsOf(m, nets) {
				fmt.Fprintf(w, "port=%s\n", p)
			}
		}
	}
	if r := d.PrivateUsers(); r != "" {
		fmt.Fprintf(w, "private-users=%s\n", r)
	}
	if d.State.Ran() {
		if d.State == pod.Running {
			if pid, err := d.PID(); err == nil {
				fmt.Fprintf(w, "pid=%d\n", pid)
			}
		} else if b, err := d.ReadFile(podfs.Ppid); err == nil {
			fmt.Fprintf(w, "pid=%s\n", strings.TrimSpace(string(b)))
		}
		fmt.Fprintf(w, "exited=%t\n", d.State != pod.Running)
	}
	if m != nil {
		for i := range m.Apps {
			name := m.Apps[i].Name.String()
			h := healthOf(d, name)
			if h == nil {
				continue
			}
			fmt.Fprintf(w, "health-%s=%s", name, h.State)
			if h.Output != "" {
				fmt.Fprintf(w, " (%s)", h.Output)
			}
			fmt.Fprintln(w)
		}
	}
	if m != nil && d.State != pod.Running {
		for i := range m.Apps {
			if code, ok := d.ExitStatus(m.Apps[i].Name.String()); ok {
				fmt.Fprintf(w, "app-%s=%d\n", m.Apps[i].Name, code)
			}
		}
	}
	if err != nil && d.State.Ran() {
		return err
	}
	return nil
}

func (a *app) catManifestCmd() *cobra.Command {
	var pretty bool
	var uuidFile string
	cmd := &cobra.Command{
		Use: "cat-manifest UUID|NAME", Short: "Print a pod's manifest",
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.onePod(cmd, args, uuidFile)
			if err != nil {
				return err
			}
			defer d.Close()
			m, err := d.Manifest()
			if err != nil {
				return err
			}
			return printManifest(a.Stdout, m, pretty)
		},
	}
	cmd.Flags().BoolVar(&pretty, "pretty-print", true, "indent")
	cmd.Flags().StringVar(&uuidFile, "uuid-file", "", "read the pod's UUID from this `FILE`")
	return cmd
}

func printManifest(w io.Writer, m any, pretty bool) error {
	var b []byte
	var err error
	if pretty {
		b, err = json.MarshalIndent(m, "", "\t")
	} else {
		b, err = json.Marshal(m)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

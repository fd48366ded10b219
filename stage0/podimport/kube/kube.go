package kube

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// Options say how pods are called.
type Options struct {
	// Name is that of the pod, if there is but one; with more it is put before
	// their own. Empty for metadata.name.
	Name string
	// Unit says that a unit of Quadlet stands behind it, which decides when the
	// pod is started.
	Unit bool
}

const maxDocuments = 1000

// converter is what documents refer to, and what they become.
type converter struct {
	r       *podimport.Result
	o       Options
	configs map[string]map[string]string
	secrets map[string]map[string]string
	loads   []load
	grown   int // bytes of values with variables
}

// load is a document that makes pods.
type load struct {
	kind string
	name string
	doc  *object
}

// Convert turns documents, which may refer to each other, into pods.
func Convert(sources []podimport.Source, o Options) (*podimport.Result, error) {
	c := &converter{r: &podimport.Result{}, o: o, configs: map[string]map[string]string{}, secrets: map[string]map[string]string{}}
	var readers []*reader
	for _, s := range sources {
		r := &reader{r: c.r, path: s.Path}
		readers = append(readers, r)
		d := yaml.NewDecoder(bytes.NewReader(s.Data))
		for n := 0; ; n++ {
			var top yaml.Node
			err := d.Decode(&top)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.Path, err)
			}
			if n >= maxDocuments {
				return nil, fmt.Errorf("%s: more than %d documents", s.Path, maxDocuments)
			}
			if len(top.Content) > 0 {
				c.document(r, top.Content[0], 0)
			}
		}
	}
	for _, l := range c.loads {
		if err := c.workload(l); err != nil {
			return nil, err
		}
	}
	for _, r := range readers {
		if err := r.rest(); err != nil {
			return nil, err
		}
	}
	if len(c.r.Pods) == 0 {
		return nil, fmt.Errorf("%s: there is no Pod in it, and nothing that makes one", sources[0].Path)
	}
	return c.r, nil
}

func (c *converter) document(r *reader, n *yaml.Node, depth int) {
	doc := r.object(n, "")
	if doc == nil {
		return
	}
	doc.ignore("apiVersion", "status")
	kind := doc.str("kind")
	if kind == "List" && depth == 0 {
		for _, item := range doc.items("items") {
			c.document(r, item, 1)
		}
		return
	}
	doc.path = kind
	meta := doc.sub("metadata")
	name := meta.str("name")
	if meta != nil {
		doc.path = kind + "/" + name
		meta.path = doc.path + ".metadata"
	}
	meta.ignore("creationTimestamp", "uid", "resourceVersion", "generateName", "generation", "managedFields", "selfLink")
	if meta.has("namespace") {
		meta.note(podimport.Changed, "namespace", "pods of a host have no namespaces, only names")
	}
	switch kind {
	case "Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob":
		c.loads = append(c.loads, load{kind, name, doc})
	case "ConfigMap":
		meta.ignore("labels", "annotations")
		c.configs[name] = doc.texts("data")
		doc.ignore("immutable")
		for k, v := range doc.texts("binaryData") {
			b, err := base64.StdEncoding.DecodeString(v)
			if err != nil {
				r.fail("%s: ConfigMap %s: %s is not base64", r.path, name, k)
			}
			c.configs[name][k] = string(b)
		}
	case "Secret":
		meta.ignore("labels", "annotations")
		doc.ignore("type", "immutable")
		c.secrets[name] = doc.texts("stringData")
		for k, v := range doc.texts("data") {
			b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(v), ""))
			if err != nil {
				r.fail("%s: Secret %s: %s is not base64", r.path, name, k)
			}
			if _, ok := c.secrets[name][k]; !ok {
				c.secrets[name][k] = string(b)
			}
		}
	case "PersistentVolumeClaim":
		meta.ignore("labels", "annotations")
		doc.note(podimport.Changed, "spec", "the claim is the directory %s/%s of the host, without a limit of its size", podimport.VolumesDir, podimport.FileName(name))
	case "Service":
		meta.ignore("labels", "annotations")
		doc.note(podimport.Todo, "spec", "ports of the host lead to a pod's apps by \"ports\" of its pod file; other pods find it by its own name, not as %q", name)
	default:
		meta.ignore("labels", "annotations")
		for _, k := range doc.keys {
			doc.used[k] = true
		}
		c.r.Note(podimport.Dropped, r.path, n.Line, kind+"/"+name, "rkt has nothing of this kind")
	}
}

// workload makes the pod of a document.
func (c *converter) workload(l load) error {
	spec, meta := l.doc.sub("spec"), l.doc.sub("metadata")
	template := spec
	var p = &podjson.Pod{Systemd: &podjson.Systemd{}, Rkt: &podjson.Options{}}
	if l.kind == "CronJob" {
		spec.ignore("successfulJobsHistoryLimit", "failedJobsHistoryLimit", "startingDeadlineSeconds")
		if when, ok := calendar(spec.str("schedule")); ok {
			p.Systemd.Timer.Add("OnCalendar", when)
			p.Systemd.Timer.Add("Persistent", "true")
		} else {
			spec.note(podimport.Todo, "schedule", "write it as \"timer\": {\"OnCalendar\": …}; see systemd.time(7)")
		}
		if zone := spec.str("timeZone"); zone != "" {
			for i := range p.Systemd.Timer {
				if p.Systemd.Timer[i].Key == "OnCalendar" {
					p.Systemd.Timer[i].Value += " " + zone
				}
			}
		}
		if spec.str("concurrencyPolicy") != "Forbid" {
			c.r.Note(podimport.Changed, l.doc.r.path, 0, l.doc.path+".spec.concurrencyPolicy", "Forbid: a pod that still runs is not started a second time")
		}
		job := spec.sub("jobTemplate")
		job.sub("metadata").ignore("labels", "annotations")
		template = job.sub("spec")
	}
	if l.kind != "Pod" {
		template.ignore("selector", "revisionHistoryLimit", "progressDeadlineSeconds", "minReadySeconds", "strategy", "updateStrategy", "podManagementPolicy",
			"ttlSecondsAfterFinished", "manualSelector", "serviceName", "persistentVolumeClaimRetentionPolicy")
		if n, ok := template.number("replicas"); ok && n != 1 {
			template.note(podimport.Dropped, "replicas", "one pod is made; %d of one kind are instances of a template, %s@.json", n, l.name)
		}
		for _, claim := range template.list("volumeClaimTemplates") {
			claim.ignore("apiVersion", "kind", "spec", "status")
			m := claim.sub("metadata")
			m.str("name") // a volume of this name is made where it is mounted
			m.ignore("labels", "annotations", "creationTimestamp")
		}
		t := template.sub("template")
		if inner := t.sub("metadata"); inner != nil {
			inner.ignore("name", "creationTimestamp")
			if inner.has("labels") || inner.has("annotations") {
				meta.ignore("labels", "annotations")
				meta = inner
			}
		}
		template = t.sub("spec")
	}
	if template == nil {
		return fmt.Errorf("%s: %s %q has no spec of a pod", l.doc.r.path, l.kind, l.name)
	}
	name := podimport.PodName(l.name)
	if c.o.Name != "" {
		if name = podimport.PodName(c.o.Name); len(c.loads) > 1 {
			name = podimport.PodName(c.o.Name + "-" + l.name)
		}
	}
	if err := podfile.CheckName(name); err != nil {
		return fmt.Errorf("%s: %w", l.doc.r.path, err)
	}
	p.UserLabels, p.UserAnnotations = some(meta.texts("labels")), some(meta.texts("annotations"))
	if v, ok := p.UserAnnotations["io.containers.autoupdate"]; ok {
		p.Rkt.Update = v
		delete(p.UserAnnotations, "io.containers.autoupdate")
	}
	pod := &pod{c: c, name: name, p: p, spec: template, kind: l.kind}
	pod.make()
	if !c.o.Unit && l.kind != "Job" && l.kind != "CronJob" {
		p.Systemd.Install.Add("WantedBy", "multi-user.target")
		c.r.Note(podimport.Changed, l.doc.r.path, 0, l.doc.path, "the pod is started at boot (\"install\")")
	}
	if l.kind == "Job" && !c.o.Unit {
		c.r.Note(podimport.Changed, l.doc.r.path, 0, l.doc.path, "the job runs when it is started: systemctl start %s", podfile.UnitName(name))
	}
	podimport.Trim(p)
	c.r.Pods = append(c.r.Pods, podimport.Pod{Name: name, File: p, From: l.doc.r.path, Private: pod.secret})
	return nil
}

func some(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return m
}

// calendar turns a schedule of cron into one of systemd, if that is simple.
func calendar(s string) (string, bool) {
	switch s {
	case "@hourly", "@daily", "@weekly", "@monthly", "@yearly":
		return s[1:], true
	case "@midnight":
		return "daily", true
	case "@annually":
		return "yearly", true
	}
	f := strings.Fields(s)
	if len(f) != 5 {
		return "", false
	}
	field := func(s string, lo, hi int) (string, bool) {
		if s == "*" {
			return s, true
		}
		var out []string
		for _, part := range strings.Split(s, ",") {
			base, step, stepped := strings.Cut(part, "/")
			if stepped {
				if _, err := strconv.Atoi(step); err != nil {
					return "", false
				}
			}
			if base == "*" {
				base = strconv.Itoa(lo)
			} else {
				from, to, span := strings.Cut(base, "-")
				if a, err := strconv.Atoi(from); err != nil || a < lo || a > hi {
					return "", false
				}
				if b, err := strconv.Atoi(to); span && (err != nil || b < lo || b > hi) {
					return "", false
				}
				base = strings.Replace(base, "-", "..", 1)
			}
			if stepped {
				base += "/" + step
			}
			out = append(out, base)
		}
		return strings.Join(out, ","), true
	}
	minute, ok1 := field(f[0], 0, 59)
	hour, ok2 := field(f[1], 0, 23)
	day, ok3 := field(f[2], 1, 31)
	month, ok4 := field(f[3], 1, 12)
	weekday := ""
	ok5 := true
	if f[4] != "*" {
		if f[2] != "*" {
			return "", false // cron takes either, systemd both
		}
		names := []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}
		var out []string
		for _, part := range strings.Split(f[4], ",") {
			from, to, span := strings.Cut(part, "-")
			a, err := strconv.Atoi(from)
			if err != nil || a < 0 || a > 7 {
				return "", false
			}
			w := names[a]
			if span {
				b, err := strconv.Atoi(to)
				if err != nil || b < 0 || b > 7 {
					return "", false
				}
				w += ".." + names[b]
			}
			out = append(out, w)
		}
		weekday = strings.Join(out, ",") + " "
	}
	if slices.Contains([]bool{ok1, ok2, ok3, ok4, ok5}, false) {
		return "", false
	}
	return weekday + "*-" + month + "-" + day + " " + hour + ":" + minute + ":00", true
}

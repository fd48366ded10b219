package cli

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/buildinfo"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/stage0/declared"
	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/pod"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// protection is what must not be collected, with the reason.
type protection struct {
	images, trees map[string]string
	// doubts are what could not be read: it may refer to any image.
	doubts []error
	// notes are pod files that would not run as they are, and so protect nothing.
	notes []error
}

func (p *protection) image(key, why string) {
	if key != "" && p.images[key] == "" {
		p.images[key] = why
	}
}

// protectPods finds what pods in any state but garbage refer to.
func (a *app) protectPods(st *stores) (*protection, error) {
	p := &protection{images: map[string]string{}, trees: map[string]string{}}
	pods, _, err := a.pods()
	if err != nil {
		return nil, err
	}
	all, err := pods.List()
	if err != nil {
		p.doubts = append(p.doubts, err)
	}
	for _, d := range all {
		if d.State != pod.Garbage && d.State != pod.Deleting && d.State != pod.Gone {
			p.pod(st, d)
		}
		d.Close()
	}
	return p, nil
}

func (p *protection) pod(st *stores, d *pod.Pod) {
	why := "pod " + d.UUID
	for _, id := range d.Trees() {
		if p.trees[id] == "" {
			p.trees[id] = why
		}
		if t, err := st.trees.Get(id); err == nil {
			p.image(t.Key, why)
		}
	}
	if !d.Has(podfs.PodManifest) {
		return // it has nothing yet, or nothing any more
	}
	m, err := d.Manifest()
	if err != nil {
		// What runs as a pod is written by rkt alone: something is broken.
		p.doubts = append(p.doubts, err)
		return
	}
	for i := range m.Apps {
		if r, err := st.store.Resolve(m.Apps[i].Image.ID.String()); err == nil {
			p.image(r.Key, why)
		}
	}
}

// protectDeclared finds what the declared pods refer to.
func (a *app) protectDeclared(st *stores, p *protection, o podfile.SearchOptions) {
	x, err := podfile.Scan(o)
	if err != nil {
		p.doubts = append(p.doubts, err)
	}
	p.generations(st, x)
	for _, e := range x.Entries() {
		if e.Bad != "" {
			continue
		}
		names := []string{e.Name}
		if e.Template {
			// What a template says is mostly the same for every instance.
			names = append(x.Instances(e.Name), e.Name+"x")
		}
		for _, name := range names {
			if _, problems := x.Read(name); podfile.Failed(problems) && !podfile.IsMasked(problems) {
				p.doubts = append(p.doubts, podfile.FirstError(problems))
				continue
			}
			f, problems := x.Load(name)
			switch {
			case f != nil:
				a.protectFile(st, p, f)
			case !podfile.IsMasked(problems):
				p.notes = append(p.notes, podfile.FirstError(problems))
			}
		}
	}
}

func (a *app) protectFile(st *stores, p *protection, f *podfile.Pod) {
	why := "declared pod " + strings.TrimSuffix(f.Name, "@x")
	for _, ap := range f.Apps {
		text := ap.Image.ID
		if text == "" {
			text = imageText(ap.Image)
		}
		p.reference(st, text, why)
	}
	if s := f.Rkt.Stage1; s != "" {
		p.reference(st, s, why)
	}
}

// generations finds what the kept generations of declared pods need. They
// count as long as somebody declares the pod.
func (p *protection) generations(st *stores, x *podfile.Index) {
	names, err := declared.Names(st.dir)
	if err != nil {
		p.doubts = append(p.doubts, err)
	}
	for _, name := range names {
		if !declares(x, name) {
			continue
		}
		d, err := declared.Open(st.dir, name)
		if err == nil {
			var gs []declared.Generation
			gs, err = d.Generations()
			for _, g := range gs {
				for _, ap := range g.Apps {
					if r, err := st.store.Resolve(ap.ID); err == nil {
						p.image(r.Key, fmt.Sprintf("generation %d of declared pod %s", g.Number, name))
					}
				}
			}
		}
		if err != nil {
			p.doubts = append(p.doubts, err)
		}
	}
}

// declares says whether a pod of the name has a file, be it a template's.
func declares(x *podfile.Index, name string) bool {
	prefix, _, instance := strings.Cut(name, "@")
	return x.Has(name) || instance && x.Has(prefix+"@")
}

// protectStage1 finds the default stage1 image.
func (a *app) protectStage1(st *stores, p *protection) error {
	c, err := a.config()
	if err != nil {
		return err
	}
	name, version, location := buildinfo.Stage1Name, buildinfo.Stage1Version, ""
	if buildinfo.Stage1Dir != "" && buildinfo.Stage1File != "" {
		location = filepath.Join(buildinfo.Stage1Dir, buildinfo.Stage1File)
	}
	if c.Stage1.Name != "" {
		name, version = c.Stage1.Name, c.Stage1.Version
	}
	if c.Stage1.Location != "" {
		location = c.Stage1.Location
	}
	const why = "default stage1 image"
	if r, err := st.store.Find(name, map[string]string{"version": version}); name != "" && err == nil {
		p.image(r.Key, why)
	}
	if location != "" {
		p.reference(st, location, why)
	}
	return nil
}

// reference protects the images that a reference would be resolved to without
// asking anybody. One that cannot be parsed cannot be run either.
func (p *protection) reference(st *stores, text, why string) {
	ref, err := image.ParseRef(text)
	if err != nil {
		p.notes = append(p.notes, fmt.Errorf("%s: %w", why, err))
		return
	}
	switch ref.Kind {
	case image.KindHash:
		if r, err := st.store.Resolve(ref.Hash); err == nil {
			p.image(r.Key, why)
		} else if many := new(store.AmbiguousError); errors.As(err, &many) {
			for _, k := range many.Keys {
				p.image(k, why)
			}
		}
	case image.KindName:
		// Which one is run depends on the machine, and on how images were
		// verified.
		os, arch := appc.HostOSArch()
		for _, labels := range []map[string]string{ref.Labels, with(ref.Labels, "os", os, "arch", arch)} {
			for _, ok := range []func(store.Record) bool{nil, func(r store.Record) bool { return r.Admission.Verified() }} {
				if r, err := st.store.FindFunc(ref.Name, labels, ok); err == nil {
					p.image(r.Key, why)
				}
			}
		}
	case image.KindPath:
		for _, source := range []string{"file:" + ref.Path, "oci:" + ref.Path, "oci-archive:" + ref.Path, "docker-archive:" + ref.Path} {
			p.source(st, source, why)
		}
	case image.KindURL:
		p.source(st, ref.URL, why)
	default:
		p.source(st, ref.String(), why)
	}
}

func with(labels map[string]string, pairs ...string) map[string]string {
	out := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = pairs[i+1]
	}
	for k, v := range labels {
		out[k] = v
	}
	return out
}

func (p *protection) source(st *stores, source, why string) {
	if r, err := st.store.Remote(source); err == nil {
		p.image(r.Key, why)
	}
}

// complete adds what the images depend on, and their trees.
func (p *protection) complete(st *stores) {
	for _, key := range slices.Sorted(maps.Keys(p.images)) {
		why := p.images[key]
		keys, err := st.trees.Images(key)
		if err != nil {
			continue // it cannot be run as it is
		}
		for _, k := range keys {
			p.image(k, why)
		}
		if t, err := st.trees.Find(key); err == nil && p.trees[t.ID] == "" {
			p.trees[t.ID] = why
		}
	}
}

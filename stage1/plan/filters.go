package plan

import (
	"fmt"
	"slices"

	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/stage1/filtergen"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// FilterDir holds the compiled filters in the pod's root. The image brings
// those that most pods use.
const FilterDir = "/rkt/filters"

// Filter is a system call filter to compile; Path is relative to the stage1 root.
type Filter struct {
	Path   string
	Key    string
	Policy filtergen.Policy
}

// callFilter is a system call isolator.
type callFilter struct {
	name string
	filtergen.Isolator
}

func newCallFilter(name string, v types.LinuxSeccompSet) *callFilter {
	c := &callFilter{name: name}
	c.Retain, c.Errno = name == types.LinuxSeccompRetainSetName, string(v.Errno())
	for _, n := range v.Set() {
		c.Set = append(c.Set, string(n))
	}
	return c
}

// filter chooses an app's filter, and widens the pod's by what the app's
// allows beyond it: an isolator must not be silently ignored.
func (p *Plan) filter(s *launch.Spec, c *callFilter) error {
	opened := filtergen.CallsOf(launch.CapNames(s.Caps &^ launch.DefaultCaps()))
	p.podCalls = append(p.podCalls, opened...)
	kind, policy := filtergen.Default, filtergen.Policy{}
	if c != nil {
		var warnings []string
		var err error
		if kind, policy, warnings, err = c.Resolve(); err != nil {
			return fmt.Errorf("isolator %s: %w", c.name, err)
		}
		for _, w := range warnings {
			p.warn("app %q: isolator %s: %s", s.Name, c.name, w)
		}
	}
	var err error
	switch kind {
	case filtergen.None:
	case filtergen.Own:
		p.podCalls = append(p.podCalls, policy.Allow...)
		s.Filter, err = p.compiled(policy)
	default:
		s.Filter = FilterDir + "/app.bpf"
		if len(opened) > 0 {
			s.Filter, err = p.compiled(filtergen.App().Widen(opened))
		}
	}
	return err
}

// choosePodFilter takes the image's filter if that is enough for all apps.
func (p *Plan) choosePodFilter() error {
	p.podFilter = FilterDir + "/pod.bpf"
	pod := filtergen.Pod()
	slices.Sort(p.podCalls)
	// send and recv are carried by calls the pod's filter allows
	more := slices.DeleteFunc(slices.Compact(p.podCalls), func(n string) bool {
		return n == "send" || n == "recv" || slices.Contains(pod.Allow, n)
	})
	if len(more) == 0 {
		return nil
	}
	var err error
	p.podFilter, err = p.compiled(pod.Widen(more))
	return err
}

// compiled has a policy compiled and returns the file's path in the pod's root.
func (p *Plan) compiled(policy filtergen.Policy) (string, error) {
	key, err := policy.Key()
	if err != nil {
		return "", err
	}
	file := FilterDir + "/" + key + ".bpf"
	if !slices.ContainsFunc(p.Filters, func(f Filter) bool { return f.Key == key }) {
		p.Filters = append(p.Filters, Filter{Path: file[1:], Key: key, Policy: policy})
	}
	return file, nil
}

// Package kube turns Pods of Kubernetes, and what makes Pods, into pod files.
package kube

import (
	"fmt"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/rkt-systemd/rkt/stage0/podimport"
)

// maxObjects bounds what is looked at, however aliases multiply it.
const maxObjects = 20000

// reader makes objects, and knows afterwards which of their keys nobody read.
type reader struct {
	r    *podimport.Result
	path string
	all  []*object
	// errs is the first thing that was of a wrong type, or too much.
	err error
}

// object is a mapping of YAML. A nil object has nothing.
type object struct {
	r    *reader
	path string // as services.db
	keys []string
	of   map[string]*yaml.Node
	line map[string]int
	used map[string]bool
	// made are those below it, each made once.
	made map[string][]*object
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

func resolve(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func (r *reader) object(n *yaml.Node, path string) *object {
	n = resolve(n)
	if n == nil || n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		r.fail("%s:%d: %s is no mapping", r.path, n.Line, path)
		return nil
	}
	if len(r.all) >= maxObjects {
		r.fail("%s: there is more in it than can be a pod", r.path)
		return nil
	}
	o := &object{r: r, path: path, of: map[string]*yaml.Node{}, line: map[string]int{}, used: map[string]bool{}, made: map[string][]*object{}}
	o.merge(n, 0)
	r.all = append(r.all, o)
	return o
}

// merge takes the keys of a mapping, and of those that it merges.
func (o *object) merge(n *yaml.Node, depth int) {
	if n = resolve(n); n == nil || n.Kind != yaml.MappingNode || depth > 4 {
		return
	}
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Tag == "!!merge" {
			m := resolve(n.Content[i+1])
			if m != nil && m.Kind == yaml.SequenceNode {
				merged = append(merged, m.Content...)
			} else {
				merged = append(merged, m)
			}
			continue
		}
		if _, ok := o.of[key.Value]; ok {
			if depth == 0 {
				o.r.fail("%s:%d: %s occurs twice in %s", o.r.path, key.Line, key.Value, o.path)
			}
			continue
		}
		o.keys = append(o.keys, key.Value)
		o.of[key.Value], o.line[key.Value] = resolve(n.Content[i+1]), key.Line
	}
	for _, m := range merged {
		o.merge(m, depth+1)
	}
}

func (o *object) at(key string) string {
	if o.path == "" {
		return key
	}
	return o.path + "." + key
}

func (o *object) node(key string) *yaml.Node {
	if o == nil {
		return nil
	}
	o.used[key] = true
	n := o.of[key]
	if n == nil || n.Tag == "!!null" {
		return nil
	}
	return n
}

func (o *object) has(key string) bool { return o != nil && o.of[key] != nil }

// str returns a scalar's text.
func (o *object) str(key string) string {
	n := o.node(key)
	if n == nil {
		return ""
	}
	if n.Kind != yaml.ScalarNode {
		o.r.fail("%s:%d: %s is no string", o.r.path, n.Line, o.at(key))
		return ""
	}
	return n.Value
}

func (o *object) boolean(key string) bool {
	b, _ := strconv.ParseBool(o.str(key))
	return b
}

func (o *object) number(key string) (int, bool) {
	s := o.str(key)
	if s == "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		o.r.fail("%s:%d: %s is no number", o.r.path, o.line[key], o.at(key))
	}
	return n, err == nil
}

func (o *object) sub(key string) *object {
	n := o.node(key)
	if n == nil {
		return nil
	}
	if made, ok := o.made[key]; ok {
		return made[0]
	}
	m := o.r.object(n, o.at(key))
	o.made[key] = []*object{m}
	return m
}

func (o *object) items(key string) []*yaml.Node {
	n := o.node(key)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		o.r.fail("%s:%d: %s is no list", o.r.path, n.Line, o.at(key))
		return nil
	}
	return n.Content
}

// list returns the objects of a list.
func (o *object) list(key string) []*object {
	if o == nil {
		return nil
	}
	if made, ok := o.made[key]; ok {
		return made
	}
	var out []*object
	for i, n := range o.items(key) {
		if m := o.r.object(n, fmt.Sprintf("%s[%d]", o.at(key), i)); m != nil {
			out = append(out, m)
		}
	}
	o.made[key] = out
	return out
}

func (o *object) strs(key string) []string {
	var out []string
	for _, n := range o.items(key) {
		if n = resolve(n); n.Kind != yaml.ScalarNode {
			o.r.fail("%s:%d: %s is no list of strings", o.r.path, n.Line, o.at(key))
			return nil
		}
		out = append(out, n.Value)
	}
	return out
}

// texts returns a mapping of strings.
func (o *object) texts(key string) map[string]string {
	m := o.sub(key)
	out := map[string]string{}
	if m != nil {
		for _, k := range m.keys {
			out[k] = m.str(k)
		}
	}
	return out
}

// note says something of a key, which thereby is read.
func (o *object) note(level podimport.Level, key, format string, args ...any) {
	if o == nil {
		return // there is nothing to say it of
	}
	o.used[key] = true
	o.r.r.Note(level, o.r.path, o.line[key], o.at(key), format, args...)
}

// ignore takes keys that need nothing.
func (o *object) ignore(keys ...string) {
	if o != nil {
		for _, k := range keys {
			o.used[k] = true
		}
	}
}

// rest notes all keys that nobody read.
func (r *reader) rest() error {
	for _, o := range r.all {
		for _, k := range o.keys {
			if !o.used[k] {
				o.note(podimport.Dropped, k, "it has no counterpart in a pod file")
			}
		}
	}
	if r.err != nil {
		return r.err
	}
	return nil
}

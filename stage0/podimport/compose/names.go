package compose

import (
	"slices"
	"strings"
)

// hostname is what a service's pod calls itself.
func (c *converter) hostname(name string) string {
	s := c.p.Services[name]
	want := s.Hostname
	if want == "" {
		want = name
	}
	out := strings.Trim(strings.Map(func(r rune) rune {
		if r < 0x80 && (isAlnum(byte(r)) || r == '-' || r == '.') {
			return r
		}
		return '-'
	}, want), "-.")
	if len(out) > 64 {
		out = strings.Trim(out[:64], "-.")
	}
	if !hostName(out) {
		return ""
	}
	return out
}

// hostName says whether rkt puts a name into other pods' hosts files.
func hostName(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || strings.Trim(label, "-") != label {
			return false
		}
		for i := range len(label) {
			if !isAlnum(label[i]) && label[i] != '-' {
				return false
			}
		}
	}
	return true
}

// automatic are the names by which other pods find those of a service, without
// any doing.
func (c *converter) automatic(name string) []string {
	out := []string{c.hostname(name)}
	for _, pod := range c.pods[name] {
		if hostName(pod) {
			out = append(out, pod)
		}
	}
	return out
}

// known are the names by which compose makes a service known in a network.
func (c *converter) known(name, key string) []string {
	if len(c.pods[name]) == 0 {
		return nil
	}
	s := c.p.Services[name]
	conf := s.Networks[key]
	var out []string
	if conf.ServiceNameAliasEnabled() {
		out = append(out, name)
	}
	if s.ContainerName != "" {
		out = append(out, s.ContainerName)
	}
	if conf != nil {
		out = append(out, conf.Aliases...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// entries are the lines of a pod's hosts file for the pods with fixed addresses.
func (c *converter) entries(name string) []string {
	var out []string
	me := c.p.Services[name]
	seen := map[string]bool{}
	for _, key := range sortedKeys(me.Networks) {
		n := c.nets[key]
		if n == nil || !n.fixed {
			continue
		}
		for _, other := range sortedKeys(c.p.Services) {
			s := c.p.Services[other]
			if _, in := s.Networks[key]; !in || other == name || c.host[other] != other {
				continue
			}
			names := c.known(other, key)
			for _, link := range me.Links {
				if to, alias, ok := strings.Cut(link, ":"); ok && to == other {
					names = append(names, alias)
				}
			}
			for _, pod := range c.pods[other] {
				for _, known := range names {
					if id := pod + " " + known; !seen[id] {
						seen[id] = true
						out = append(out, n.addr[pod].String()+"="+known)
					}
				}
			}
		}
	}
	return out
}

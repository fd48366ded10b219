package podunit

import "github.com/rkt-systemd/rkt/internal/podfile"

// profile are the directives that a profile gives to the pod's unit. It can give
// few: what runs there first is rkt, which needs the host. Directives of the file
// come later and win.
func profile(p *podfile.Pod) []podfile.Directive {
	if p.Rkt.Profile != podfile.ProfileStrict {
		return nil
	}
	return []podfile.Directive{
		// What rkt@.service allows, without tun and fuse.
		{Key: "DeviceAllow", Values: []string{"", "char-pts rw", "char-* m", "block-* m"}},
		{Key: "TasksMax", Values: []string{"4096"}},
	}
}

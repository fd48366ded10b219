package plan

import (
	"fmt"
	"slices"
	"strings"
)

// Device is a device node of the host.
type Device struct {
	Block        bool
	Major, Minor uint32
}

// DevicesFile holds the pod's device rules in its root; see filter.ReadDevices.
const DevicesFile = "rkt/devices"

// devices writes which device nodes the pod may make and open. The unit that
// rkt runs in may make any, since images with nodes are unpacked there; the
// pod may not.
func (p *Plan) devices(in Input) {
	if in.Run.DisablePaths {
		if !in.Facts.InUnit {
			p.properties = append(p.properties, "DevicePolicy=auto", "DeviceAllow=")
		}
		return
	}
	if in.Run.PrivateUsers != "" {
		// There the kernel lets nobody make a device node, and only the unit's rules
		// bound who opens those of volumes.
		return
	}
	rules := []string{
		"c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", // null zero full random urandom
		"c 5:0 rw", "c 5:2 rw", // tty, ptmx
		"c 10:200 rwm", "c 10:229 rwm", // net/tun, fuse: of use with capabilities only
	}
	for major := 136; major <= 143; major++ { // terminals
		rules = append(rules, fmt.Sprintf("c %d:* rw", major))
	}
	var own []string
	for _, m := range p.Mounts {
		d, ok := in.Facts.Devices[m.Source]
		if !ok {
			continue
		}
		kind, name, perms := "c", "char", "rw"
		if d.Block {
			kind, name = "b", "block"
		}
		if m.ReadOnly {
			perms = "r"
		}
		own = append(own, fmt.Sprintf("%s %d:%d %s", kind, d.Major, d.Minor, perms))
		if !in.Facts.InUnit {
			p.properties = append(p.properties, fmt.Sprintf("DeviceAllow=/dev/%s/%d:%d %s", name, d.Major, d.Minor, perms))
		}
	}
	slices.Sort(own)
	rules = append(rules, slices.Compact(own)...)
	p.file(DevicesFile, 0o600, []byte(strings.Join(rules, "\n")+"\n"))
}

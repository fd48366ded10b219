package podfile

import (
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
)

// The short strings of the command line: --volume, --mount, --port.

// params splits "k=v,k=v" and reports bad or repeated keys.
func (p *parser) params(v *jsonpos.Value, path, text string, known []string) (map[string]string, bool) {
	out := map[string]string{}
	good := true
	for part := range strings.SplitSeq(text, ",") {
		k, val, ok := strings.Cut(part, "=")
		isKnown := false
		for _, n := range known {
			isKnown = isKnown || n == k
		}
		_, again := out[k]
		switch {
		case !ok:
			p.errorf(v, path, quote(part), " is not KEY=VALUE")
		case !isKnown:
			p.reportNear(Error, v.Pos, path, "unknown key "+quote(k), k, known)
		case again:
			p.errorf(v, path, "key ", quote(k), " is given twice")
		default:
			out[k] = val
			continue
		}
		good = false
	}
	return out, good
}

// shortVolume reads "NAME,kind=host,source=/ABS[,readOnly=BOOL][,recursive=BOOL][,owner=OWNER]"
// or "NAME,kind=empty[,mode=0755][,uid=0][,gid=0][,readOnly=BOOL]".
func (p *parser) shortVolume(v *jsonpos.Value, path string) (Volume, bool) {
	text, ok := p.word(v, path)
	if !ok {
		return Volume{}, false
	}
	ps, good := p.params(v, path, "name="+text, volumeKeys)
	vol := Volume{Name: ps["name"], Kind: ps["kind"], Source: ps["source"], Mode: ps["mode"], Owner: ps["owner"]}
	if !isACName(vol.Name) {
		p.errorf(v, path, "volume name ", quote(vol.Name), " is no AC name")
		return vol, false
	}
	for k, dst := range map[string]**bool{"readOnly": &vol.ReadOnly, "recursive": &vol.Recursive} {
		if s, ok := ps[k]; ok {
			b, err := strconv.ParseBool(s)
			if err != nil {
				p.errorf(v, path, k, " is ", quote(s), ", want true or false")
				good = false
			}
			*dst = &b
		}
	}
	for k, dst := range map[string]**int{"uid": &vol.UID, "gid": &vol.GID} {
		if s, ok := ps[k]; ok {
			n, err := strconv.ParseUint(s, 10, 32)
			if err != nil || n > maxID {
				p.errorf(v, path, k, " is ", quote(s), ", want a number")
				good = false
			}
			id := int(n)
			*dst = &id
		}
	}
	return vol, good && p.checkVolume(v, path, vol)
}

// shortMount reads "volume=VOL,target=PATH".
func (p *parser) shortMount(v *jsonpos.Value, path string) (Mount, bool) {
	text, ok := p.word(v, path)
	if !ok {
		return Mount{}, false
	}
	ps, good := p.params(v, path, text, []string{"volume", "target"})
	m := Mount{Volume: ps["volume"], Path: ps["target"]}
	if good && (m.Volume == "" || m.Path == "") {
		p.errorf(v, path, "mount ", quote(text), " must be volume=VOLUME,target=PATH")
		good = false
	}
	return m, good
}

// shortPort reads "NAME:HOSTPORT" or "NAME:HOSTIP:HOSTPORT".
func (p *parser) shortPort(v *jsonpos.Value, path string) (Port, bool) {
	text, ok := p.word(v, path)
	if !ok {
		return Port{}, false
	}
	name, rest, _ := strings.Cut(text, ":")
	ip, num, hasIP := strings.Cut(rest, ":")
	if !hasIP {
		ip, num = "", rest
	}
	n, err := strconv.ParseUint(num, 10, 16)
	switch {
	case !isACName(name):
		p.errorf(v, path, "port name ", quote(name), " is no AC name")
	case hasIP && !isIPv4(ip):
		p.errorf(v, path, quote(ip), " is no IPv4 address")
	case err != nil || n == 0:
		p.errorf(v, path, quote(num), " is no port number; want NAME:HOSTPORT or NAME:HOSTIP:HOSTPORT")
	default:
		return Port{Name: name, HostIP: ip, HostPort: uint16(n)}, true
	}
	return Port{}, false
}

func isIPv4(s string) bool {
	n := 0
	for part := range strings.SplitSeq(s, ".") {
		v, err := strconv.ParseUint(part, 10, 8)
		if err != nil || strconv.FormatUint(v, 10) != part {
			return false
		}
		n++
	}
	return n == 4
}

// isIP tells an address from other text; stage0 reads the IPv6 ones in earnest.
func isIP(s string) bool {
	if isIPv4(s) {
		return true
	}
	if strings.Count(s, ":") < 2 || len(s) > 45 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' || c == ':' || c == '.') {
			return false
		}
	}
	return true
}

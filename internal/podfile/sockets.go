package podfile

import (
	"strconv"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
	"github.com/rkt-systemd/rkt/internal/timespan"
	"github.com/rkt-systemd/rkt/internal/unitfile"
)

// knownSocket are the directives of [Socket] known to systemd 252 and those
// added up to 258, those of running its own commands aside.
const knownSocket = " " +
	"Accept AcceptFileDescriptors Backlog BindIPv6Only BindToDevice Broadcast DeferAcceptSec DeferTrigger DeferTriggerMaxSec DirectoryMode " +
	"ExecStartPost ExecStartPre ExecStopPost ExecStopPre FileDescriptorName FlushPending FreeBind Group IPAccounting IPAddressAllow IPAddressDeny IPTOS " +
	"IPTTL KeepAlive KeepAliveIntervalSec KeepAliveProbes KeepAliveTimeSec ListenDatagram ListenStream Mark MaxConnections " +
	"MaxConnectionsPerSource MessageQueueMaxMessages MessageQueueMessageSize NFTSet NetworkNamespacePath NoDelay PassCredentials " +
	"PassFileDescriptorsToExec PassPIDFD PassPacketInfo PassSecurity PipeSize PollLimitBurst PollLimitIntervalSec Priority PrivateNetwork " +
	"ReceiveBuffer RemoveOnStop ReusePort SELinuxContextFromNet SendBuffer Slice SmackLabel SmackLabelIPIn SmackLabelIPOut SocketBindAllow " +
	"SocketBindDeny SocketGroup SocketMode SocketProtocol SocketUser Symlinks TCPCongestion TimeoutSec Timestamping Transparent " +
	"TriggerLimitBurst TriggerLimitIntervalSec User Writable "

func refusedSocket(key string) string {
	switch key {
	case "Service":
		return "the socket is this pod's and starts nothing else"
	case "ListenSequentialPacket", "ListenFIFO", "ListenSpecial", "ListenNetlink", "ListenMessageQueue", "ListenUSBFunction":
		return "an app of a pod takes its sockets by the number of their port; only ListenStream= and ListenDatagram= have one"
	}
	return ""
}

// socketValue checks a value of [Socket] that decides whether an app ever
// sees a connection; all else is systemd's to judge.
func (p *parser) socketValue(key string, v *jsonpos.Value, path, s string) bool {
	switch key {
	case "Accept":
		if s != "" && s != "no" && s != "0" && s != "false" && s != "off" && s != "n" && s != "f" {
			p.errorf(v, path, "Accept=", s, " would start a pod for every connection; apps take the listening sockets")
			return false
		}
	case "ListenStream", "ListenDatagram":
		template := strings.HasSuffix(p.pod.Name, "@") // its instances may have numbers
		if s != "" && !isListen(s) && !template {
			p.errorf(v, path, quote(s), " is no PORT, ADDRESS:PORT or [ADDRESS]:PORT; an app of a pod takes its sockets by the number of their port")
			return false
		}
	}
	return true
}

// isListen reports whether s is what ListenStream= takes for IP: a port alone,
// or with an address, maybe on one interface.
func isListen(s string) bool {
	s, scope, hasScope := strings.Cut(s, "%%")
	if hasScope && (scope == "" || strings.ContainsAny(scope, " /%")) {
		return false
	}
	host, port := "", s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i+1:]
		if inner, ok := strings.CutPrefix(host, "["); ok {
			inner, ok = strings.CutSuffix(inner, "]")
			if !ok || !isIP(inner) || isIPv4(inner) {
				return false
			}
		} else if !isIPv4(host) {
			return false
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0 && port[0] != '0'
}

// socket reads the section that makes the pod start with its first connection.
func (p *parser) socket(v *jsonpos.Value, path string) {
	p.pod.Socket = p.directives(v, path, "socket")
	listens := 0
	for _, d := range p.pod.Socket {
		if d.Key != "ListenStream" && d.Key != "ListenDatagram" {
			continue
		}
		for _, s := range d.Values {
			if listens++; s == "" {
				listens = 0
			}
		}
	}
	if listens == 0 && v.Kind == jsonpos.Object {
		p.errorf(v, path, "has neither ListenStream nor ListenDatagram: nothing to listen on")
	}
}

// idleTime reads how long a proxy without connections stays.
func (p *parser) idleTime(v *jsonpos.Value, path string) string {
	s, ok := p.systemdValue(v, path)
	if !ok {
		return ""
	}
	if d, ok := timespan.Parse(s); !ok || d < time.Second {
		p.errorf(v, path, quote(s), " is no time span of a second or more, like \"5min\" or \"1h 30min\" (see systemd.time(7)); without the key a proxy stays for ever")
		return ""
	}
	return s
}

// podPort says of appc's direct mapping what matters for a port that is
// answered by a proxy.
func (p *parser) podPort(v *jsonpos.Value, path string) (number int64, protocol string) {
	if m := v.Member("port"); m != nil {
		number, _ = p.integer(m, join(path, "port"), 1, 65535)
	}
	if m := v.Member("protocol"); m != nil {
		protocol, _ = p.word(m, join(path, "protocol"))
	}
	return number, protocol
}

// activated checks a port that starts the pod with its first connection. What
// depends on the images is left to stage0.
func (p *parser) activated(v *jsonpos.Value, path string, port *Port) {
	at := join(path, "activate")
	switch {
	case !port.Activate && port.IdleTime != "":
		p.errorf(v.Member("idleTime"), join(path, "idleTime"), "needs \"activate\": true; a port that is forwarded has nothing that could end")
	case !port.Activate:
	case port.HostPort == 0:
		p.errorf(v, path, "port lacks \"hostPort\", where to wait for connections")
	case !unitfile.IsUnitName(ProxyUnit(p.pod.Name, port.Name) + ".service"):
		p.errorf(v, at, "gives units whose names are too long for systemd; shorten the name of the port or of the pod")
	}
	pp := v.Member("podPort")
	if !port.Activate || pp == nil || pp.Kind != jsonpos.Object {
		return
	}
	_, protocol := p.podPort(pp, join(path, "podPort"))
	if protocol != "" && protocol != "tcp" {
		p.errorf(v.Member("activate"), at, "is for tcp only, not for ", protocol, ": without connections nobody can tell who is answered")
	}
}

// checkActivated looks at what ports mean to each other, and to the network.
func (p *parser) checkActivated(v *jsonpos.Value) {
	names, places := map[string]bool{}, map[string]string{}
	host := false
	for _, s := range p.pod.Rkt.Net {
		for part := range strings.SplitSeq(s, ",") {
			host = host || part == "host"
		}
	}
	for i, it := range v.Items {
		if it.Kind != jsonpos.Object {
			continue
		}
		on := it.Member("activate")
		if on == nil || !on.Bool {
			continue
		}
		at := index("ports", i)
		name, hostPort := textOf(it.Member("name")), textOf(it.Member("hostPort"))
		if names[name] {
			p.errorf(it, at, "port ", quote(name), " is activated twice; its units are named after it")
		}
		names[name] = true
		place := textOf(it.Member("hostIP")) + " " + hostPort
		if other, ok := places[place]; ok {
			p.errorf(it, at, "port ", quote(other), " is activated at ", hostPort, " already")
		}
		places[place] = name
		if pp := it.Member("podPort"); host && textOf(pp.Member("port")) == hostPort {
			p.errorf(it, at, "with the host's network the app itself listens on ", hostPort, "; \"hostPort\" must be another")
		}
	}
}

// appPorts reads ports of an app: those of the image changed, and new ones.
func (p *parser) appPorts(v *jsonpos.Value, path string) []AppPort {
	if !p.list(v, path) {
		return nil
	}
	var out []AppPort
	seen := map[string]bool{}
	for i, it := range v.Items {
		at := index(path, i)
		if !p.object(it, at) {
			continue
		}
		var port AppPort
		for _, m := range it.Members {
			at := join(at, m.Key)
			switch m.Key {
			case "name":
				port.Name, _ = p.acName(m.Value, at)
			case "port":
				n, _ := p.integer(m.Value, at, 1, 65535)
				port.Port = uint16(n)
			case "count":
				n, _ := p.integer(m.Value, at, 1, 65535)
				port.Count = uint16(n)
			case "protocol":
				port.Protocol = p.oneOf(m.Value, at, " tcp udp sctp ")
			case "socketActivated":
				if b, ok := p.boolean(m.Value, at); ok {
					port.SocketActivated = &b
				}
			default:
				p.unknown(m, index(path, i), appPortKeys)
			}
		}
		switch {
		case it.Member("name") == nil:
			p.errorf(it, at, "port lacks \"name\"")
		case seen[port.Name]:
			p.errorf(it, at, "duplicate port name ", quote(port.Name))
		}
		seen[port.Name] = true
		out = append(out, port)
	}
	return out
}

// textOf is the text of a word or number, empty for anything else.
func textOf(v *jsonpos.Value) string {
	if v == nil {
		return ""
	}
	return v.Text
}

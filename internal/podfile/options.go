package podfile

import (
	"strings"

	"github.com/rkt-systemd/rkt/internal/hostsfile"
	"github.com/rkt-systemd/rkt/internal/jsonpos"
)

// laterKeys are options of `rkt run` that a pod file cannot have yet. They are
// errors, not warnings: a pod must not run without what its file asks for.
const laterKeys = " mdsRegister inheritEnv interactive machineName readOnly uuidFileSave "

const insecureOptions = " none image tls ondisk http pubkey capabilities paths seccomp all-fetch all-run all "

// rkt reads the options of `rkt run`.
func (p *parser) rkt(v *jsonpos.Value) {
	if !p.object(v, "rkt") {
		return
	}
	o := &p.pod.Rkt
	for _, m := range v.Members {
		at := join("rkt", m.Key)
		switch m.Key {
		case "net":
			o.Net = p.net(m.Value, at)
		case "hostname":
			var ok bool
			if o.Hostname, ok = p.word(m.Value, at); ok && !isHostname(o.Hostname) {
				p.errorf(m.Value, at, quote(o.Hostname), " is no host name: labels of letters, digits and \"-\", 64 characters in all")
			}
		case "stage1":
			var ok bool
			if o.Stage1, ok = p.word(m.Value, at); ok && strings.HasPrefix(o.Stage1, "-") {
				p.errorf(m.Value, at, quote(o.Stage1), " begins with \"-\"")
			}
		case "pullPolicy":
			o.PullPolicy = p.oneOf(m.Value, at, " new update never ")
		case "insecureOptions":
			list, _ := p.oneOrMore(m.Value, at)
			known := strings.Fields(insecureOptions)
			for _, s := range list {
				for part := range strings.SplitSeq(s, ",") {
					if !strings.Contains(insecureOptions, " "+part+" ") || part == "" {
						p.reportNear(Error, m.Value.Pos, at, quote(part)+" is none of"+strings.TrimRight(insecureOptions, " "),
							part, known)
						continue
					}
					o.InsecureOptions = append(o.InsecureOptions, part)
				}
			}
		case "update":
			p.update(m.Value, at)
		case "dns":
			o.DNS, _ = p.oneOrMore(m.Value, at)
		case "dnsSearch":
			o.DNSSearch, _ = p.oneOrMore(m.Value, at)
		case "dnsOptions", "dnsOpt":
			o.DNSOptions, _ = p.oneOrMore(m.Value, at)
		case "dnsDomain":
			o.DNSDomain, _ = p.word(m.Value, at)
		case "hostsEntries":
			o.HostsEntries, _ = p.oneOrMore(m.Value, at)
		case "ipc":
			o.IPC = p.oneOf(m.Value, at, " auto private parent ")
		case "profile":
			o.Profile = p.oneOf(m.Value, at, profiles)
		case "environment":
			o.Environment = p.nameValues(m.Value, at, checkEnvName)
		case "environmentFiles":
			o.EnvironmentFiles = p.environmentFiles(m.Value, at)
		case "journal":
			o.Journal = p.oneOf(m.Value, at, " host guest ")
		case "logNamespace":
			o.LogNamespace = p.logNamespace(m.Value, at)
		case "ready":
			o.Ready = p.oneOf(m.Value, at, " started healthy ")
		case "credentials":
			o.Credentials = p.credentials(m.Value, at)
		case "noOverlay":
			o.NoOverlay, _ = p.boolean(m.Value, at)
		case "privateUsers":
			if b, ok := p.boolean(m.Value, at); ok {
				o.PrivateUsers = &b
			}
		default:
			if strings.Contains(laterKeys, " "+m.Key+" ") {
				p.report(Error, m.Pos, at, "is not supported yet by this version", "")
				continue
			}
			p.unknown(m, "rkt", rktKeys)
		}
	}
	if _, _, err := hostsfile.ParseResolv(o.DNS, o.DNSSearch, o.DNSOptions, o.DNSDomain); err != nil {
		p.errorf(v, "rkt.dns", err.Error())
	}
	if _, _, err := hostsfile.ParseEntries(o.HostsEntries); err != nil {
		p.errorf(v, "rkt.hostsEntries", err.Error())
	}
}

// environmentFiles reads paths, each maybe after a "-": it may be missing.
func (p *parser) environmentFiles(v *jsonpos.Value, path string) []string {
	list, _ := p.oneOrMore(v, path)
	for _, s := range list {
		if !strings.HasPrefix(strings.TrimPrefix(s, "-"), "/") {
			p.errorf(v, path, quote(s), " is no absolute path")
		}
	}
	return list
}

func (p *parser) oneOf(v *jsonpos.Value, path, allowed string) string {
	s, ok := p.word(v, path)
	if ok && !strings.Contains(allowed, " "+s+" ") {
		words := strings.Fields(allowed)
		p.reportNear(Error, v.Pos, path, "is "+quote(s)+", want "+strings.Join(words, ", "), s, words)
		return ""
	}
	return s
}

// net checks the form of the networks; which of them exist is known at run time.
func (p *parser) net(v *jsonpos.Value, path string) []string {
	list, ok := p.oneOrMore(v, path)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for _, s := range list {
		for part := range strings.SplitSeq(s, ",") {
			name, args, hasArgs := strings.Cut(part, ":")
			exclusive := name == "host" || name == "none" || name == "all"
			switch {
			case name == "":
				p.errorf(v, path, "network without a name in ", quote(s))
			case seen[name]:
				p.errorf(v, path, "network ", quote(name), " is given twice")
			case hasArgs && exclusive:
				p.errorf(v, path, "network ", quote(name), " takes no arguments")
			case hasArgs && !strings.Contains(args, "="):
				p.errorf(v, path, "arguments ", quote(args), " of network ", quote(name), " are not KEY=VALUE")
			}
			seen[name] = true
		}
	}
	for _, name := range []string{"host", "none"} {
		if seen[name] && len(seen) > 1 {
			p.errorf(v, path, "network ", quote(name), " cannot be combined with others")
		}
	}
	return list
}

func isHostname(s string) bool {
	if len(s) > maxName {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := 0; i < len(label); i++ {
			if !isAlnum(label[i]) && label[i] != '-' {
				return false
			}
		}
	}
	return true
}

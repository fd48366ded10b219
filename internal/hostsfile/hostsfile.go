// Package hostsfile makes the name service files of an app: hosts and
// resolv.conf. stage0 writes those the user asks for, stage1 the fallback for
// images without one and the resolv.conf that networks ask for.
package hostsfile

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// Fallback is the hosts file of an app whose image has none.
func Fallback(hostname string) string {
	return "127.0.0.1 localhost localhost.domain localhost4 localhost4.localdomain4 " + hostname + "\n" +
		"::1 ip6-localhost ip6-loopback localhost6 localhost6.localdomain6\n" +
		"fe00::0 ip6-localnet\nff00::0 ip6-mcastprefix\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\nff02::3 ip6-allhosts\n"
}

// Entry gives names to an address.
type Entry struct {
	IP    string
	Names []string
}

// Hosts is the fallback with entries added.
func Hosts(hostname string, entries []Entry) string {
	var b strings.Builder
	b.WriteString(Fallback(hostname) + "\n# Added by rkt run --hosts-entry\n")
	for _, e := range entries {
		b.WriteString(e.IP + " " + strings.Join(e.Names, " ") + "\n")
	}
	return b.String()
}

// peersMark begins the part of a hosts file that names other pods. No entry that
// is asked for can look like it: names have no spaces and no "#".
const peersMark = "\n# Pods on the same networks; written by rkt.\n"

// WithPeers is a hosts file with what names other pods replaced. Names that the
// file gives to something else stay its own.
func WithPeers(file []byte, peers []Entry) []byte {
	base, _, _ := strings.Cut(string(file), peersMark)
	if len(peers) == 0 {
		return []byte(base)
	}
	own := map[string]bool{}
	for line := range strings.Lines(base) {
		line, _, _ = strings.Cut(line, "#")
		for i, word := range strings.Fields(line) {
			if i > 0 {
				own[strings.ToLower(word)] = true
			}
		}
	}
	var b strings.Builder
	b.Grow(len(base) + len(peersMark) + 64*len(peers))
	b.WriteString(base + peersMark)
	for _, p := range peers {
		line := p.IP
		for _, n := range p.Names {
			if !own[strings.ToLower(n)] {
				line += " " + n
			}
		}
		if line != p.IP {
			b.WriteString(line + "\n")
		}
	}
	return []byte(b.String())
}

// ParseEntries reads IP=NAME[,IP=NAME…] arguments; the names of an address
// accumulate. The word "host" alone, once or more, stands for the host's own file.
func ParseEntries(args []string) (entries []Entry, host bool, err error) {
	at := map[string]int{}
	for _, a := range args {
		for part := range strings.SplitSeq(a, ",") {
			if part == "host" {
				host = true
				continue
			}
			ip, name, ok := strings.Cut(part, "=")
			if !ok {
				return nil, false, problem("hosts entry ", part, " is neither IP=NAME nor host")
			}
			addr, err := netip.ParseAddr(ip)
			if err != nil || addr.Zone() != "" {
				return nil, false, problem("hosts entry ", part, ": there is no IP address before the \"=\"")
			}
			if err := word(name); err != nil {
				return nil, false, problem("hosts entry ", part, ": the name "+err.Error())
			}
			i, ok := at[ip]
			if !ok {
				i = len(entries)
				at[ip] = i
				entries = append(entries, Entry{IP: ip})
			}
			entries[i].Names = append(entries[i].Names, name)
		}
	}
	if host && len(entries) > 0 {
		return nil, false, errors.New("hosts entry \"host\" takes the host's file as it is; no other entries are allowed beside it")
	}
	return entries, host, nil
}

// Resolv is the content of a resolv.conf.
type Resolv struct {
	Servers, Search, Options []string
	Domain                   string
}

// String is the file, with a comment that says who made it.
func (r Resolv) String(comment string) string {
	var b strings.Builder
	b.WriteString("# " + comment + "\n\n")
	if len(r.Search) > 0 {
		b.WriteString("search " + strings.Join(r.Search, " ") + "\n")
	}
	for _, s := range r.Servers {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(r.Options) > 0 {
		b.WriteString("options " + strings.Join(r.Options, " ") + "\n")
	}
	if r.Domain != "" {
		b.WriteString("domain " + r.Domain + "\n")
	}
	return b.String()
}

// ParseResolv reads the --dns family: mode is host, none, stage0 (a file is to
// be made of r), or default (nothing was asked for).
func ParseResolv(dns, search, options []string, domain string) (r Resolv, mode string, err error) {
	mode = "default"
	r = Resolv{Search: search, Options: options, Domain: domain}
	for _, d := range dns {
		for s := range strings.SplitSeq(d, ",") {
			r.Servers = append(r.Servers, s)
		}
	}
	other := len(search)+len(options) > 0 || domain != ""
	for _, s := range r.Servers {
		if s != "host" && s != "none" {
			continue
		}
		switch {
		case len(r.Servers) > 1:
			return r, "", errors.New("no other --dns options allowed when --dns=" + s)
		case other:
			return r, "", errors.New("no --dns-search, --dns-opt or --dns-domain allowed when --dns=" + s)
		}
		return Resolv{}, s, nil
	}
	for _, s := range r.Servers {
		if _, err := netip.ParseAddr(s); err != nil {
			return r, "", problem("name server ", s, " is no IP address")
		}
	}
	for what, list := range map[string][]string{"search domain": search, "resolver option": options, "domain": {domain}} {
		for _, s := range list {
			if s == "" && what == "domain" {
				continue
			}
			if err := word(s); err != nil {
				return r, "", problem(what+" ", s, " "+err.Error())
			}
		}
	}
	if other || len(r.Servers) > 0 {
		mode = "stage0"
	}
	return r, mode, nil
}

// problem makes an error; the generator links this package, and not fmt.
func problem(before, quoted, after string) error {
	return errors.New(before + strconv.Quote(quoted) + after)
}

// word refuses what would not stay one word of its line.
func word(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	if len(s) > 255 {
		return errors.New("is longer than 255 characters")
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == '#' || s[i] == ';' {
			return errors.New("has a character that cannot stand there")
		}
	}
	return nil
}

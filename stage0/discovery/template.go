package discovery

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"strings"
)

// endpoint fills a template in, once for the image, once for its signature.
func endpoint(template string, vars map[string]string) (Endpoint, error) {
	vars = maps.Clone(vars)
	vars["ext"] = "aci"
	image, err := fill(template, vars)
	if err != nil {
		return Endpoint{}, err
	}
	vars["ext"] = "aci.asc"
	signature, err := fill(template, vars)
	if err != nil {
		return Endpoint{}, err
	}
	if image == signature {
		return Endpoint{}, errors.New("without {ext} an image cannot be told from its signature")
	}
	return Endpoint{image, signature}, nil
}

// fill replaces {variables} by their values, escaped for the part of the URL
// they stand in.
func fill(template string, vars map[string]string) (string, error) {
	var b strings.Builder
	rest := template
	for {
		before, after, ok := strings.Cut(rest, "{")
		if strings.Contains(before, "}") {
			return "", errors.New("a brace without its partner")
		}
		b.WriteString(before)
		if !ok {
			return b.String(), nil
		}
		name, after, ok := strings.Cut(after, "}")
		if !ok {
			return "", errors.New("a brace without its partner")
		}
		value, known := vars[name]
		switch {
		case !known:
			return "", fmt.Errorf("unknown variable %q", name)
		case name == "name": // an identifier, safe everywhere, and its slashes count
		case strings.Contains(b.String(), "?"):
			value = url.QueryEscape(value)
		default:
			value = url.PathEscape(value)
		}
		b.WriteString(value)
		if b.Len() > maxURL {
			return "", fmt.Errorf("the URL is longer than %d bytes", maxURL)
		}
		rest = after
	}
}

// LocalHost says whether a host, by its name alone, is this machine or a
// link-local neighbour.
func LocalHost(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err == nil {
		return LocalAddr(ip)
	}
	// 127.1, 2130706433 and 0x7f.1 are addresses to some resolvers.
	last := host[strings.LastIndexByte(host, '.')+1:]
	return last != "" && (strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x"))
}

// LocalAddr says whether an address is of this machine or link-local.
func LocalAddr(ip netip.Addr) bool {
	ip = ip.Unmap()
	return ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast() || ip.IsInterfaceLocalMulticast() || ip.IsUnspecified()
}

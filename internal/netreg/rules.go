package netreg

import (
	"context"
	"crypto/sha512"
	"fmt"
	"os/exec"
	"strings"
)

// masqueradeChain is the chain of the firewall's nat table that the plugins of
// the CNI project make for one container in one network.
func masqueradeChain(network, id string) string { return chain("CNI-", network, id) }

// forwardChain is that of the plugin portmap for the ports of one container.
func forwardChain(network, id string) string { return chain("CNI-DN-", network, id) }

func chain(prefix, network, id string) string { return hashed(prefix, network, id, 28) }

// hashed is how the plugins make names of a limited length.
func hashed(prefix, network, id string, length int) string {
	return fmt.Sprintf("%s%x", prefix, sha512.Sum512([]byte(network+id)))[:length]
}

// IFB is the device of the host by which the plugin bandwidth slows down what a
// container sends.
func IFB(network, id string) string { return hashed("bwp", network, id, 15) }

// RemoveRules removes the firewall rules that the plugins of the CNI project made
// to masquerade a pod in a network, and with ports those that forward to it. The
// plugins find the former by the addresses of the pod's link: one that was killed
// after it had removed the link leaves them, and the next does not see them.
func RemoveRules(ctx context.Context, network, id string, ports bool) error {
	chains := []string{masqueradeChain(network, id)}
	if ports {
		chains = append(chains, forwardChain(network, id))
	}
	for _, tool := range []string{"iptables", "ip6tables"} {
		if _, err := exec.LookPath(tool); err != nil {
			continue // the plugins then made none either
		}
		rules, err := exec.CommandContext(ctx, tool, "-w", "10", "-t", "nat", "-S").Output()
		if err != nil {
			continue // no nat table of this family
		}
		script := removal(string(rules), chains...)
		if script == "" {
			continue
		}
		cmd := exec.CommandContext(ctx, tool+"-restore", "-w", "10", "--noflush")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("removing the firewall's chains %q of network %q: %w: %s", chains, network, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// removal is the input of iptables-restore that removes chains, and the rules
// that lead to them, from those that iptables -S prints.
func removal(rules string, chains ...string) string {
	var jumps, drops strings.Builder
	for _, chain := range chains {
		there := false
		for line := range strings.Lines(rules) {
			line = strings.TrimSpace(line)
			if rest, ok := strings.CutPrefix(line, "-A "); ok && strings.HasSuffix(line, " -j "+chain) {
				jumps.WriteString("-D " + rest + "\n")
			}
			there = there || line == "-N "+chain
		}
		if there {
			drops.WriteString("-F " + chain + "\n-X " + chain + "\n")
		}
	}
	if jumps.Len()+drops.Len() == 0 {
		return ""
	}
	return "*nat\n" + jumps.String() + drops.String() + "COMMIT\n"
}

package network

import (
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rkt-systemd/rkt/internal/podfs"
)

// leavingFile in the pod's network directory tells that a tear-down began.
const leavingFile = "leaving"

// begun notes that a tear-down begins, and tells whether the set-up never came
// to its end, or a tear-down began before: plugins may then have been killed.
func begun(podDir string) (bool, error) {
	_, err := os.Lstat(filepath.Join(podDir, podfs.NetInfo))
	interrupted := errors.Is(err, fs.ErrNotExist)
	f, err := os.OpenFile(filepath.Join(podDir, podfs.NetDir, leavingFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if errors.Is(err, fs.ErrExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("noting the tear-down of the network: %w", err)
	}
	return interrupted, f.Close()
}

// masqueradeChain is the chain of the firewall's nat table that the plugins of
// the CNI project make for one container in one network.
func masqueradeChain(network, id string) string {
	return fmt.Sprintf("CNI-%x", sha512.Sum512([]byte(network+id)))[:28]
}

// sweepMasquerade removes the rules that masquerade a pod. The plugins find them
// by the addresses of the pod's link: one that was killed after it had removed the
// link leaves them, and the next does not see them.
func sweepMasquerade(ctx context.Context, network, id string) error {
	chain := masqueradeChain(network, id)
	for _, tool := range []string{"iptables", "ip6tables"} {
		if _, err := exec.LookPath(tool); err != nil {
			continue // the plugins then made none either
		}
		rules, err := exec.CommandContext(ctx, tool, "-w", "10", "-t", "nat", "-S").Output()
		if err != nil {
			continue // no nat table of this family
		}
		script := removal(string(rules), chain)
		if script == "" {
			continue
		}
		cmd := exec.CommandContext(ctx, tool+"-restore", "-w", "10", "--noflush")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("removing the firewall's chain %q of network %q: %w: %s", chain, network, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// removal is the input of iptables-restore that removes a chain, and the rules
// that lead to it, from those that iptables -S prints.
func removal(rules, chain string) string {
	var b strings.Builder
	there := false
	for line := range strings.Lines(rules) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "-A "); ok && strings.HasSuffix(line, " -j "+chain) {
			b.WriteString("-D " + rest + "\n")
		}
		there = there || line == "-N "+chain
	}
	if there {
		b.WriteString("-F " + chain + "\n-X " + chain + "\n")
	}
	if b.Len() == 0 {
		return ""
	}
	return "*nat\n" + b.String() + "COMMIT\n"
}

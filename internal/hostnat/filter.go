package hostnat

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/internal/bounded"
)

// filterChain is the chain of iptables' filter table that accepts connections
// to forwarded ports, where the table drops what it does not know.
const filterChain = "RKT-FORWARD"

// filterScript is the input of iptables-restore, for one family. Without
// records the chain is empty: filter removes it then.
func filterScript(records []Record, v4 bool) (script string, rules int) {
	var b strings.Builder
	fmt.Fprintf(&b, "*filter\n:%[1]s - [0:0]\n-F %[1]s\n", filterChain)
	for _, r := range records {
		if !r.Filter {
			continue
		}
		for _, f := range r.Forwards {
			if a := f.Pod.Addr(); a.Is4() == v4 {
				rules++
				fmt.Fprintf(&b, "-A %s -d %s -p %s --dport %d -m conntrack --ctstate DNAT -j ACCEPT\n", filterChain, a, f.Protocol, f.PodPort)
			}
		}
	}
	b.WriteString("COMMIT\n")
	return b.String(), rules
}

func filter(ctx context.Context, records []Record) error {
	for _, t := range []struct {
		tool string
		v4   bool
	}{{"iptables", true}, {"ip6tables", false}} {
		path := bounded.FindTool(t.tool)
		if path == "" {
			continue
		}
		have, err := tables(ctx, path, "", "-S", "FORWARD")
		if err != nil {
			if t.v4 {
				return err
			}
			continue // a kernel without that family
		}
		script, rules := filterScript(records, t.v4)
		jump := slices.Contains(strings.Split(have, "\n"), "-A FORWARD -j "+filterChain)
		if rules == 0 {
			if !jump {
				continue
			}
			script = strings.Replace(script, "COMMIT", "-D FORWARD -j "+filterChain+"\n-X "+filterChain+"\nCOMMIT", 1)
		} else if !jump {
			script = strings.Replace(script, "COMMIT", "-I FORWARD 1 -j "+filterChain+"\nCOMMIT", 1)
		}
		if _, err := tables(ctx, path+"-restore", script, "--noflush"); err != nil {
			return err
		}
	}
	return nil
}

func tables(ctx context.Context, path, stdin string, args ...string) (string, error) {
	var said strings.Builder
	out, err := bounded.Run(ctx, bounded.Process{Path: path, Args: append([]string{"-w", "10"}, args...), Stdin: []byte(stdin), Env: bounded.Environ(os.Environ()),
		Messages: &bounded.Lines{To: &said}})
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", path, err, bounded.Shorten(strings.TrimSpace(said.String()), bounded.MaxLine))
	}
	return string(out), nil
}

package cli

import (
	"errors"
	"fmt"
	"strings"
)

// checkNets holds the values of --net to their grammar, before anything is
// fetched or made. Whether the networks exist only stage1 knows.
func checkNets(values []string) error {
	seen := map[string]bool{}
	for _, item := range splitNet(values) {
		name, args, given := strings.Cut(item, ":")
		switch {
		case name == "":
			return errors.New("netname must not be empty")
		case seen[name]:
			return fmt.Errorf("found duplicate netname %q", name)
		case given && (name == "all" || name == "host" || name == "none"):
			return fmt.Errorf("arguments are not supported by special netname %q", name)
		case strings.Contains(args, ":"):
			return fmt.Errorf("network %q provided with invalid arguments: %q", name, args)
		}
		seen[name] = true
	}
	return nil
}

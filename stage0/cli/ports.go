package cli

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/appc/spec/schema/types"
)

// parsePort reads NAME:[HOSTIP:]HOSTPORT.
func parsePort(s string) (types.ExposedPort, error) {
	var p types.ExposedPort
	parts := strings.Split(s, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return p, fmt.Errorf("%q is not in name:[ip:]port format", s)
	}
	name, err := types.NewACName(parts[0])
	if err != nil {
		return p, fmt.Errorf("%q is not a valid port name", parts[0])
	}
	p.Name = *name
	if len(parts) == 3 {
		if p.HostIP = net.ParseIP(parts[1]); p.HostIP == nil {
			return p, fmt.Errorf("%q is not a valid IP", parts[1])
		}
	}
	n, err := strconv.ParseUint(parts[len(parts)-1], 10, 16)
	if err != nil || n == 0 {
		return p, fmt.Errorf("%q is not a valid port number", parts[len(parts)-1])
	}
	p.HostPort = uint(n)
	return p, nil
}

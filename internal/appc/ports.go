package appc

import (
	"fmt"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
)

// PodPort is the port of an app that is called name. section is an app's
// section, which may be nil.
func PodPort(m *schema.PodManifest, name types.ACName, section func(*schema.RuntimeApp) *types.App) (types.Port, error) {
	var found []types.Port
	for i := range m.Apps {
		app := section(&m.Apps[i])
		if app == nil {
			continue
		}
		for _, p := range app.Ports {
			if p.Name == name {
				found = append(found, p)
			}
		}
	}
	switch len(found) {
	case 0:
		return types.Port{}, fmt.Errorf("port name %q could not be found in any apps", name)
	case 1:
		return found[0], nil
	}
	return types.Port{}, fmt.Errorf("port name %q defined multiple apps", name)
}

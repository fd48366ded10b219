package appc

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/appc/spec/schema/types"
)

// AppArmorName is an isolator of the specification that the library lacks.
const AppArmorName = "os/linux/apparmor-profile"

// AppArmorProfile is the value of AppArmorName. It embeds a type of the library
// for the methods that only the library can write: at most one in an app, no
// conflict with others.
type AppArmorProfile struct {
	types.LinuxCPUShares
	profile string
}

// Profile is the profile's name.
func (p AppArmorProfile) Profile() string { return p.profile }

// UnmarshalJSON reads {"profile": NAME}.
func (p *AppArmorProfile) UnmarshalJSON(b []byte) error {
	var v struct {
		Profile string `json:"profile"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	p.profile = v.Profile
	return nil
}

// AssertValid checks the name: it is written to the kernel as one line.
func (p AppArmorProfile) AssertValid() error {
	switch {
	case p.profile == "":
		return errors.New("profile must not be empty")
	case len(p.profile) > maxName || strings.ContainsFunc(p.profile, control):
		return fmt.Errorf("%q cannot be the name of a profile", p.profile)
	}
	return nil
}

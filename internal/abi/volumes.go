package abi

import (
	"fmt"
	"slices"
	"strings"
)

// AnnotationVolumeOwner of a pod, and for volumes of an app's own of that app
// in the pod's manifest, says whose the files of host volumes are: NAME=OWNER,
// separated by commas. The volumes of appc have no place for it.
const AnnotationVolumeOwner = "coreos.com/rkt/stage1/volume-owner"

// AnnotationPrivateUsers of a stage1 image is "true" if pods that do not ask
// for either may be given private users.
const AnnotationPrivateUsers = prefix + "private-users"

// Owners of the files of a host volume. The empty one is OwnerIDMap where the
// file system can do it, else OwnerHost.
const (
	// OwnerIDMap shows ids in the pod as they are on disk: root's files are root's.
	OwnerIDMap = "idmap"
	// OwnerApp shows the owner and group of the source as the app's user and group,
	// and nobody else's files.
	OwnerApp = "app"
	// OwnerHost shows the host's ids as they are, to private users as nobody's.
	OwnerHost = "host"
)

// CheckOwner refuses what is no owner.
func CheckOwner(s string) error {
	switch s {
	case OwnerIDMap, OwnerApp, OwnerHost:
		return nil
	}
	return fmt.Errorf("owner %q is not known: %s, %s and %s are", s, OwnerIDMap, OwnerApp, OwnerHost)
}

// FormatVolumeOwners is the annotation's value.
func FormatVolumeOwners(owners map[string]string) string {
	var out []string
	for name, owner := range owners {
		out = append(out, name+"="+owner)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// ParseVolumeOwners reads the annotation; of an empty one the map is empty.
func ParseVolumeOwners(s string) (map[string]string, error) {
	out := map[string]string{}
	if s == "" {
		return out, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		name, owner, ok := strings.Cut(part, "=")
		if _, twice := out[name]; !ok || name == "" || twice {
			return nil, fmt.Errorf("annotation %s: %q is not VOLUME=OWNER, once for each volume", AnnotationVolumeOwner, part)
		}
		if err := CheckOwner(owner); err != nil {
			return nil, fmt.Errorf("annotation %s: volume %q: %w", AnnotationVolumeOwner, name, err)
		}
		out[name] = owner
	}
	return out, nil
}

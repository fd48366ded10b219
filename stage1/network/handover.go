package network

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/libcni"
)

// Path is the namespace's file.
func (n *Namespace) Path() string { return n.path }

// Leave undoes Join and Open.
func (n *Namespace) Leave(ctx context.Context, warn ...func(string)) error {
	return Teardown(ctx, n.c.PodDir, n.c.UUID, n.c.LocalConfig, warn...)
}

// handover is a Namespace on its way to the process that joins it. The networks
// go with it as they were read: they shall not be read twice.
type handover struct {
	Config   Config        `json:"config"`
	Path     string        `json:"path"`
	Networks []handoverNet `json:"networks"`
}

type handoverNet struct {
	File string          `json:"file"`
	Conf json.RawMessage `json:"conf"`
	Args string          `json:"args,omitempty"`

	Builtin bool     `json:"builtin,omitempty"`
	Notes   []string `json:"notes,omitempty"`
}

// MarshalJSON is for a process that joins the networks in this one's place.
func (n *Namespace) MarshalJSON() ([]byte, error) {
	h := handover{Config: n.c, Path: n.path}
	for _, l := range n.lists {
		h.Networks = append(h.Networks, handoverNet{l.File, l.List.Bytes, l.Args, l.Builtin, l.Notes})
	}
	return json.Marshal(h)
}

// UnmarshalJSON is the opposite of MarshalJSON.
func (n *Namespace) UnmarshalJSON(b []byte) error {
	var h handover
	if err := json.Unmarshal(b, &h); err != nil {
		return err
	}
	n.c, n.path = h.Config, h.Path
	for _, l := range h.Networks {
		list, err := libcni.NetworkConfFromBytes(l.Conf)
		if err != nil {
			return fmt.Errorf("network of file %q: %w", l.File, err)
		}
		n.lists = append(n.lists, Network{File: l.File, List: list, Args: l.Args, Builtin: l.Builtin, Notes: l.Notes})
	}
	return nil
}

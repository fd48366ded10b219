package abi

import (
	"fmt"
	"strings"
)

// AnnotationNetwork names the program that tells of networks; a stage1 need not
// have one.
const AnnotationNetwork = prefix + "network"

// Network holds the arguments of the network entrypoint.
type Network struct {
	Debug       bool
	LocalConfig string
	// Check is the UUID of a pod whose networks are to be looked at; without one
	// the networks that are configured are listed.
	Check string
}

// ConfiguredNetwork is one of a list of them, which is written as JSON.
type ConfiguredNetwork struct {
	Name    string   `json:"name"`
	Types   []string `json:"types"`
	Subnets []string `json:"subnets,omitempty"`
	// File is where it is configured; "" if it is built in.
	File string `json:"file,omitempty"`
}

// What became of the look at a network.
const (
	NetworkOK           = "ok"
	NetworkFailed       = "failed"
	NetworkNotCheckable = "not checkable"
)

// NetworkState is how one network of a pod is.
type NetworkState struct {
	Network   string `json:"network"`
	Interface string `json:"interface,omitempty"`
	State     string `json:"state"`
	Message   string `json:"message,omitempty"`
}

// Args builds the command line without the program.
func (n Network) Args() []string {
	var args []string
	if n.Debug {
		args = append(args, "--debug")
	}
	if n.LocalConfig != "" {
		args = append(args, "--local-config="+n.LocalConfig)
	}
	if n.Check != "" {
		return append(args, "check", n.Check)
	}
	return append(args, "list")
}

// ParseNetwork is the inverse of Args.
func ParseNetwork(args []string) (Network, error) {
	var n Network
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		name, value, _ := strings.Cut(args[0], "=")
		switch name {
		case "--debug":
			n.Debug = true
		case "--local-config":
			n.LocalConfig = value
		default:
			return n, fmt.Errorf("unknown argument %q", args[0])
		}
		args = args[1:]
	}
	switch {
	case len(args) == 1 && args[0] == "list":
		return n, nil
	case len(args) == 2 && args[0] == "check" && args[1] != "":
		n.Check = args[1]
		return n, nil
	}
	return n, fmt.Errorf("\"list\" or \"check UUID\" is missing")
}

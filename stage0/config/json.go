package config

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"

	"github.com/rkt-systemd/rkt/internal/netsettings"
)

// JSON is what "rkt config" prints: an object with the one member "stage0",
// whose elements are valid configuration files. Secrets are in clear.
func (c *Config) JSON(pretty bool) ([]byte, error) {
	type header struct {
		Version string `json:"rktVersion"`
		Kind    string `json:"rktKind"`
	}
	entries := []any{}
	for _, domain := range slices.Sorted(maps.Keys(c.Auth)) {
		a := c.Auth[domain]
		entries = append(entries, struct {
			header
			Domains     []string `json:"domains"`
			Type        string   `json:"type"`
			Credentials any      `json:"credentials"`
		}{header{versionV1, kindAuth}, []string{domain}, a.Type, a.secret()})
	}
	for _, registry := range slices.Sorted(maps.Keys(c.DockerAuth)) {
		entries = append(entries, struct {
			header
			Registries  []string    `json:"registries"`
			Credentials BasicSecret `json:"credentials"`
		}{header{versionV1, kindDockerAuth}, []string{registry}, c.DockerAuth[registry]})
	}
	for _, prefix := range slices.Sorted(maps.Keys(c.Registries)) {
		entries = append(entries, struct {
			header
			Registry
		}{header{versionV1, kindRegistry}, c.Registries[prefix]})
	}
	entries = append(entries, struct {
		header
		Paths
	}{header{versionV1, kindPaths}, c.Paths}, struct {
		header
		Stage1
	}{header{versionV1, kindStage1}, c.Stage1})
	if !reflect.DeepEqual(c.Network, netsettings.Settings{}) {
		entries = append(entries, struct {
			header
			netsettings.Settings
		}{header{versionV1, netsettings.Kind}, c.Network})
	}
	doc := map[string]any{"stage0": entries}
	if pretty {
		return json.MarshalIndent(doc, "", "\t")
	}
	return json.Marshal(doc)
}

func (a Auth) secret() any {
	switch a.Type {
	case AuthOAuth:
		return a.OAuth
	case AuthAWS:
		return a.AWS
	default:
		return a.Basic
	}
}

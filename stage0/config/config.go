package config

import (
	"github.com/rkt-systemd/rkt/internal/buildinfo"

	"github.com/rkt-systemd/rkt/internal/netsettings"
)

// Dirs are the three layers, weak to strong; an empty name is no layer.
type Dirs struct {
	System, Local, User string
}

// Config is the merged configuration.
type Config struct {
	Auth       map[string]Auth        // by domain: host or host:port
	DockerAuth map[string]BasicSecret // by registry
	Registries map[string]Registry    // by prefix
	Paths      Paths
	Stage1     Stage1
	// Network is what stage1 reads from the same files.
	Network netsettings.Settings
}

// Auth types.
const (
	AuthBasic = "basic"
	AuthOAuth = "oauth"
	AuthAWS   = "aws"
)

// Auth is how to authenticate to a host.
type Auth struct {
	Type  string
	Basic BasicSecret
	OAuth OAuthSecret
	AWS   AWSSecret
}

// BasicSecret is a user's name and password.
type BasicSecret struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

// OAuthSecret is a bearer token.
type OAuthSecret struct {
	Token string `json:"token"`
}

// AWSSecret signs requests to S3.
type AWSSecret struct {
	AccessKeyID     string `json:"accessKeyID"`
	SecretAccessKey string `json:"secretAccessKey"`
	Region          string `json:"awsRegion,omitempty"`
}

// Paths as configured; empty means the default.
type Paths struct {
	Data         string `json:"data"`
	Stage1Images string `json:"stage1-images"`
}

// Stage1 is the default stage1 image as configured; empty means the default.
type Stage1 struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Location string `json:"location"` // absolute path or URL
}

// AuthFor finds the credentials for host, or host:port, exactly as in the URL.
func (c *Config) AuthFor(host string) (Auth, bool) {
	if c == nil {
		return Auth{}, false
	}
	a, ok := c.Auth[host]
	return a, ok
}

// DataDir is the configured or built-in data directory.
func (c *Config) DataDir() string {
	if c != nil && c.Paths.Data != "" {
		return c.Paths.Data
	}
	return buildinfo.DataDir
}

// Stage1ImagesDir is the configured or built-in directory of stage1 images.
func (c *Config) Stage1ImagesDir() string {
	if c != nil && c.Paths.Stage1Images != "" {
		return c.Paths.Stage1Images
	}
	return buildinfo.Stage1Dir
}

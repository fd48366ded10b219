package config

import "errors"

// Dirs are the three layers, weak to strong; an empty name is no layer.
type Dirs struct {
	System, Local, User string
}

// Config is the merged configuration.
type Config struct {
	Auth       map[string]Auth        // by domain: host or host:port
	DockerAuth map[string]BasicSecret // by registry
	Paths      Paths
	Stage1     Stage1
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

type BasicSecret struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

type OAuthSecret struct {
	Token string `json:"token"`
}

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

func Load(d Dirs) (*Config, error)                 { return nil, errors.New("not implemented") }
func (c *Config) JSON(pretty bool) ([]byte, error) { return nil, errors.New("not implemented") }

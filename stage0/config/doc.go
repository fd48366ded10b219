// Package config reads rkt's configuration files: the vendor's, the
// administrator's and the user's layer, merged into one struct.
//
// A layer's files are a union in which nothing may be defined twice; a stronger
// layer replaces single units (an auth domain, a registry's password, all
// settings of a registry prefix, a path, stage1's name and version, stage1's
// location) of a weaker one. Every error names the file.
//
// Exported:
//
//	Load(dirs Dirs) (*Config, error)
//	(*Config) AuthFor(host string) (Auth, bool); DataDir(), Stage1ImagesDir()
//	(*Config) RegistryFor(host, repository) (Registry, bool); DockerAuthFor(host)
//	RegistryHost(host) string                      the hub's names made one
//	(*Config) JSON(pretty bool) ([]byte, error)    what "rkt config" prints
//
// stage0 may import it.
package config

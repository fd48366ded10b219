// Package buildinfo holds what the build decides: the version and the
// installation paths. The linker sets the variables (-X); the defaults are
// those of a distribution package, so that a plain "go build" works too.
package buildinfo

var (
	// Version is rkt's version, a semantic version.
	Version = "2.0.0"
	// LibDir holds vendor files: stage1 images, vendor configuration.
	LibDir = "/usr/lib/rkt"
	// Stage1Dir is the directory of installed stage1 images.
	Stage1Dir = "/usr/lib/rkt/stage1-images"
	// Stage1File is the file name of the default stage1 image in Stage1Dir.
	Stage1File = "stage1-nspawn.aci"
	// Stage1Name and Stage1Version identify the default stage1 image in the store.
	Stage1Name    = "coreos.com/rkt/stage1-nspawn"
	Stage1Version = Version
	// FlyName is the name of the stage1 image of the fly flavour.
	FlyName = "coreos.com/rkt/stage1-fly"
	// LocalConfig and DataDir are the built-in defaults of the global flags.
	LocalConfig = "/etc/rkt"
	DataDir     = "/var/lib/rkt"
)

package appc

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
)

const (
	// HashPrefix begins every image ID.
	HashPrefix = "sha512-"
	// KeyDigits is the number of digits in a store key.
	KeyDigits = 64
	// IDDigits is the number of digits in a whole image ID.
	IDDigits = 128

	maxName = 255
)

// CheckName checks an AC identifier that may become a path.
func CheckName(s string) error {
	if len(s) > maxName {
		return fmt.Errorf("name %q is longer than %d bytes", s[:32]+"...", maxName)
	}
	if !types.ValidACIdentifier.MatchString(s) {
		return fmt.Errorf("bad name %q: lower case letters and digits, separated by one of - . _ ~ /", s)
	}
	return nil
}

// CheckHash checks an image ID or a prefix of one and returns its digits in
// lower case.
func CheckHash(s string) (digits string, err error) {
	digits, ok := strings.CutPrefix(s, HashPrefix)
	if !ok {
		return "", fmt.Errorf("bad image ID %q: must begin with %q", s, HashPrefix)
	}
	if digits == "" || len(digits) > IDDigits || strings.Trim(digits, "0123456789abcdefABCDEF") != "" {
		return "", fmt.Errorf("bad image ID %q: want 1 to %d hexadecimal digits after %q", s, IDDigits, HashPrefix)
	}
	return strings.ToLower(digits), nil
}

// Key is the store key of an image ID, which must have at least KeyDigits digits.
func Key(id string) string { return id[:len(HashPrefix)+KeyDigits] }

// CheckKey checks a store key: exactly KeyDigits lower-case digits.
func CheckKey(key string) error {
	digits, err := CheckHash(key)
	if err != nil {
		return err
	}
	if len(digits) != KeyDigits || HashPrefix+digits != key {
		return fmt.Errorf("bad image key %q", key)
	}
	return nil
}

// Label is the value of an image's label, "" when absent.
func Label(m *schema.ImageManifest, name string) string {
	v, _ := m.Labels.Get(name)
	return v
}

// Labels are an image's labels as a map.
func Labels(m *schema.ImageManifest) map[string]string {
	out := make(map[string]string, len(m.Labels))
	for _, l := range m.Labels {
		out[l.Name.String()] = l.Value
	}
	return out
}

// Annotation is the value of an image's annotation, "" when absent.
func Annotation(m *schema.ImageManifest, name string) string {
	v, _ := m.Annotations.Get(name)
	return v
}

// Version is an image's label "version".
func Version(m *schema.ImageManifest) string { return Label(m, "version") }

// DisplayName is NAME or NAME:VERSION.
func DisplayName(m *schema.ImageManifest) string {
	if v := Version(m); v != "" {
		return m.Name.String() + ":" + v
	}
	return m.Name.String()
}

// runnableArchs are the architectures of images that can be run.
func runnableArchs() []string {
	return []string{"amd64", "i386", "aarch64", "aarch64_be", "armv6l", "armv7l", "armv7b",
		"ppc64", "ppc64le", "s390x", "riscv64", "loong64"}
}

// CheckRunnable says why an image cannot be run as an app or a stage1: images
// without os and arch serve as dependencies only.
func CheckRunnable(m *schema.ImageManifest) error {
	os, ok := m.Labels.Get("os")
	if !ok || os == "" {
		return errors.New("missing os label in the image manifest")
	}
	arch, ok := m.Labels.Get("arch")
	if !ok || arch == "" {
		return errors.New("missing arch label in the image manifest")
	}
	return CheckOSArch(os, arch)
}

// CheckOSArch checks that this rkt knows how to run os and arch.
func CheckOSArch(os, arch string) error {
	if os != "linux" {
		return fmt.Errorf("bad os %q (must be one of: [linux])", os)
	}
	if archs := runnableArchs(); !slices.Contains(archs, arch) {
		return fmt.Errorf("bad arch %q for %s (must be one of: %v)", arch, os, archs)
	}
	return nil
}

// ToAppcArch translates Go's word for an architecture ("" if there is none).
func ToAppcArch(goarch, variant string) string {
	switch goarch {
	case "amd64", "ppc64", "ppc64le", "s390x", "riscv64", "loong64":
		return goarch
	case "386":
		return "i386"
	case "arm64":
		return "aarch64"
	case "arm":
		if strings.TrimPrefix(variant, "v") == "7" {
			return "armv7l"
		}
		return "armv6l"
	}
	return ""
}

// HostOSArch is what this machine runs, in appc's words.
func HostOSArch() (os, arch string) { return runtime.GOOS, ToAppcArch(runtime.GOARCH, "7") }

// registerArchs teaches the library, once and before its first use, the
// architectures that appeared after its last release (it refuses manifests
// that name others) and the isolator it lacks. Its tables are package
// variables; this is the only writer.
var registerArchs = sync.OnceFunc(func() {
	types.AddIsolatorValueConstructor(AppArmorName, func() types.IsolatorValue { return &AppArmorProfile{} })
	types.ValidOSArch["linux"] = runnableArchs()
})

package oci

import (
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/cpu"
)

// HostPlatform is what this machine runs.
func HostPlatform() Platform {
	p := Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
	switch p.Architecture {
	case "amd64":
		p.Variant = x86Level()
	case "arm64":
		p.Variant = "v8"
	case "arm":
		p.Variant = "v7"
	}
	return p
}

// x86Level is the micro-architecture level of the psABI; of each level's
// features the ones are asked that came last.
func x86Level() string {
	x := cpu.X86
	switch {
	case !x.HasSSE42 || !x.HasPOPCNT || !x.HasSSSE3 || !x.HasCX16:
		return "v1"
	case !x.HasAVX2 || !x.HasBMI1 || !x.HasBMI2 || !x.HasFMA || !x.HasOSXSAVE:
		return "v2"
	case !x.HasAVX512F || !x.HasAVX512BW || !x.HasAVX512CD || !x.HasAVX512DQ || !x.HasAVX512VL:
		return "v3"
	}
	return "v4"
}

var platformWord = regexp.MustCompile(`^[a-z0-9_.-]{1,64}$`)

// ParsePlatform parses OS/ARCHITECTURE[/VARIANT] in the words of Go and OCI.
func ParsePlatform(text string) (Platform, error) {
	parts := strings.Split(strings.ToLower(text), "/")
	bad := len(parts) < 2 || len(parts) > 3
	for _, p := range parts {
		bad = bad || !platformWord.MatchString(p)
	}
	if bad {
		return Platform{}, fmt.Errorf("bad platform %q: want OS/ARCHITECTURE[/VARIANT], as linux/arm64 or linux/arm/v7", clip(text))
	}
	p := Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "i386":
		p.Architecture = "386"
	}
	return p, nil
}

// String is OS/ARCHITECTURE[/VARIANT].
func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return clip(s)
}

// level orders the variants of an architecture; ok is false for unknown ones.
func (p Platform) level() (n int, ok bool) {
	v := p.Variant
	if v == "" {
		switch p.Architecture {
		case "amd64":
			v = "v1"
		case "arm64":
			v = "v8"
		case "arm":
			v = "v7"
		default:
			return 0, true
		}
	}
	major, minor, _ := strings.Cut(strings.TrimPrefix(v, "v"), ".")
	n, err := strconv.Atoi(major)
	if err != nil || n < 0 || n > 99 {
		return 0, false
	}
	n *= 100
	if minor != "" {
		m, err := strconv.Atoi(minor)
		if err != nil || m < 0 || m > 99 {
			return 0, false
		}
		n += m
	}
	return n, true
}

// Runs says whether an image for other runs where p is asked for, and how well:
// the higher the better.
func (p Platform) Runs(other Platform) (rank int, ok bool) {
	if p.OS != other.OS || p.Architecture != other.Architecture {
		return 0, false
	}
	if p.Variant == other.Variant {
		rank, _ = p.level()
		return rank, true
	}
	have, ok1 := other.level()
	want, ok2 := p.level()
	return have, ok1 && ok2 && have <= want
}

// PlatformError says that an image exists, but not for the platform asked for.
type PlatformError struct {
	Want    Platform
	Offered []string // platforms, sorted
}

func (e *PlatformError) Error() string {
	if len(e.Offered) == 0 {
		return fmt.Sprintf("no image for %s: the index offers no images at all", e.Want)
	}
	const most = 20
	list, more := e.Offered, ""
	if len(list) > most {
		list, more = list[:most], fmt.Sprintf(" and %d more", len(list)-most)
	}
	return fmt.Sprintf("no image for %s: there is one for %s%s", e.Want, strings.Join(list, ", "), more)
}

// skip says whether an entry is no image: an attestation, an artifact, or of a
// type that is not known.
func (e Entry) skip() bool {
	switch {
	case e.Platform != nil && e.Platform.OS == "unknown" && e.Platform.Architecture == "unknown":
		return true
	case e.Annotations["vnd.docker.reference.type"] != "":
		return true
	case e.ArtifactType != "" && checkConfigType(e.ArtifactType) != nil:
		return true
	}
	return checkTop(e.MediaType) != nil
}

// Select picks the entry of an index for a platform: that of the best variant
// which is not above the one asked for, of equals the first. Attestations are
// no candidates. Where the index says nothing of platforms, a single entry is
// taken; whoever reads its configuration checks the platform. The entry may be
// an index itself; Resolve follows it.
func Select(index []byte, p Platform) (Descriptor, error) {
	x, err := ParseIndex(index, "")
	if err != nil {
		return Descriptor{}, err
	}
	found, err := x.candidates(p)
	if err != nil {
		return Descriptor{}, err
	}
	if len(found) > 1 {
		return Descriptor{}, fmt.Errorf("selecting an image for %s: the index has %d entries that name no platform", p, len(found))
	}
	return found[0].Descriptor, nil
}

// candidates is the one entry for a platform or, if there is none, all entries
// that name no platform.
func (x *Index) candidates(p Platform) ([]Entry, error) {
	var found, unnamed []Entry
	var offered []string
	best := -1
	for _, e := range x.Entries {
		if e.skip() {
			continue
		}
		if e.Platform == nil {
			unnamed = append(unnamed, e)
			continue
		}
		if s := e.Platform.String(); !slices.Contains(offered, s) {
			offered = append(offered, s)
		}
		if rank, ok := p.Runs(*e.Platform); ok && rank > best {
			best, found = rank, []Entry{e}
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	if len(unnamed) > 0 {
		return unnamed, nil
	}
	slices.Sort(offered)
	return nil, &PlatformError{Want: p, Offered: offered}
}

package image

import (
	"fmt"
	"strings"
)

// Insecure is the set of checks the user switched off.
type Insecure uint

const (
	InsecureImage        Insecure = 1 << iota // no signature verification
	InsecureTLS                               // any certificate
	InsecureHTTP                              // plain http for discovery, keys
	InsecurePubkey                            // keys over insecure connections
	InsecureCapabilities                      // apps get all capabilities
	InsecurePaths                             // no masked /proc and /sys paths
	InsecureSeccomp                           // no system call filter
	InsecureOnDisk                            // accepted, without effect

	InsecureAllFetch = InsecureImage | InsecureTLS | InsecureHTTP | InsecurePubkey
	InsecureAllRun   = InsecureCapabilities | InsecurePaths | InsecureSeccomp
	InsecureAll      = InsecureAllFetch | InsecureAllRun | InsecureOnDisk
)

type insecureWord struct {
	word string
	bits Insecure
}

func insecureWords() []insecureWord {
	return []insecureWord{
		{"none", 0},
		{"image", InsecureImage},
		{"tls", InsecureTLS},
		{"http", InsecureHTTP},
		{"pubkey", InsecurePubkey},
		{"capabilities", InsecureCapabilities},
		{"paths", InsecurePaths},
		{"seccomp", InsecureSeccomp},
		{"ondisk", InsecureOnDisk},
		{"all-fetch", InsecureAllFetch},
		{"all-run", InsecureAllRun},
		{"all", InsecureAll},
	}
}

// ParseInsecure parses the value of --insecure-options: words separated by
// commas, in any case, each at most once.
func ParseInsecure(list string) (Insecure, error) {
	var set Insecure
	seen := map[string]bool{}
	for _, item := range strings.Split(list, ",") {
		word := strings.ToLower(strings.TrimSpace(item))
		known := false
		var all []string
		for _, w := range insecureWords() {
			all = append(all, w.word)
			if w.word == word {
				set |= w.bits
				known = true
			}
		}
		if !known {
			return 0, fmt.Errorf("unknown insecure option %q: must be one of %s", item, strings.Join(all, ", "))
		}
		if seen[word] {
			return 0, fmt.Errorf("insecure option %q given twice", item)
		}
		seen[word] = true
	}
	return set, nil
}

// Has says whether all of bits are set.
func (i Insecure) Has(bits Insecure) bool { return i&bits == bits }

// String is the canonical list, "none" if empty.
func (i Insecure) String() string {
	var words []string
	for _, w := range insecureWords() {
		if w.bits != 0 && w.bits&(w.bits-1) == 0 && i.Has(w.bits) {
			words = append(words, w.word)
		}
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ",")
}

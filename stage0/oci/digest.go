package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

const (
	digestPrefix = "sha256:"
	digestHex    = 2 * sha256.Size
)

// ParseDigest checks a digest, "sha256:" and 64 lower-case hex digits, and
// returns the digits. No other algorithm is accepted.
func ParseDigest(digest string) (digits string, err error) {
	digits, ok := strings.CutPrefix(digest, digestPrefix)
	if !ok {
		if algorithm, _, found := strings.Cut(digest, ":"); found {
			return "", fmt.Errorf("digest %q: the algorithm %q is not supported, only sha256", clip(digest), clip(algorithm))
		}
		return "", fmt.Errorf("bad digest %q: want sha256:DIGITS", clip(digest))
	}
	if len(digits) != digestHex || strings.Trim(digits, "0123456789abcdef") != "" {
		return "", fmt.Errorf("bad digest %q: want sha256: and %d lower-case hexadecimal digits", clip(digest), digestHex)
	}
	return digits, nil
}

// Digest is the digest of data.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return digestPrefix + hex.EncodeToString(sum[:])
}

// CheckDigest compares data with the digest it was asked by.
func CheckDigest(digest string, data []byte) error {
	if _, err := ParseDigest(digest); err != nil {
		return err
	}
	if got := Digest(data); got != digest {
		return fmt.Errorf("the content has digest %s, expected %s: it was damaged or tampered with", got, digest)
	}
	return nil
}

// CheckBlob compares data with the descriptor that names it.
func CheckBlob(d Descriptor, data []byte) error {
	if int64(len(data)) != d.Size {
		return fmt.Errorf("%s has %d bytes, its descriptor says %d", clip(d.Digest), len(data), d.Size)
	}
	return CheckDigest(d.Digest, data)
}

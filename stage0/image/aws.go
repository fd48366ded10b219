package image

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/stage0/config"
)

// signAWS signs a request without a body for S3 (AWS Signature Version 4).
func signAWS(req *http.Request, secret config.AWSSecret, now time.Time) {
	const algorithm, service = "AWS4-HMAC-SHA256", "s3"
	region := secret.Region
	if region == "" {
		region = awsRegion(req.URL.Hostname())
	}
	at := now.UTC().Format("20060102T150405Z")
	empty := sha256.Sum256(nil)
	req.Header.Set("X-Amz-Date", at)
	req.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(empty[:]))

	names := []string{"host"}
	for name := range req.Header {
		if lower := strings.ToLower(name); lower == "range" || strings.HasPrefix(lower, "x-amz-") {
			names = append(names, lower)
		}
	}
	slices.Sort(names)
	var headers strings.Builder
	for _, name := range names {
		value := req.URL.Host
		if name != "host" {
			value = strings.Join(req.Header.Values(name), ",")
		}
		headers.WriteString(name + ":" + strings.Join(strings.Fields(value), " ") + "\n")
	}
	signed := strings.Join(names, ";")
	path := awsEscape(req.URL.Path, true)
	if path == "" {
		path = "/"
	}
	request := strings.Join([]string{req.Method, path, awsQuery(req.URL.Query()), headers.String(), signed, hex.EncodeToString(empty[:])}, "\n")
	sum := sha256.Sum256([]byte(request))
	scope := at[:8] + "/" + region + "/" + service + "/aws4_request"
	text := strings.Join([]string{algorithm, at, scope, hex.EncodeToString(sum[:])}, "\n")
	key := []byte("AWS4" + secret.SecretAccessKey)
	for _, part := range []string{at[:8], region, service, "aws4_request", text} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	req.Header.Set("Authorization", algorithm+" Credential="+secret.AccessKeyID+"/"+scope+
		",SignedHeaders="+signed+",Signature="+hex.EncodeToString(key))
}

// awsRegion guesses the region from the name of an S3 host.
func awsRegion(host string) string {
	if strings.Contains(host, "amazonaws") {
		labels := strings.Split(host, ".")
		for i, l := range labels {
			region, dashed := strings.CutPrefix(l, "s3-")
			switch {
			case dashed && region != "" && region != "accelerate" && region != "website":
				return region
			case l == "s3" && i+1 < len(labels) && strings.Count(labels[i+1], "-") >= 2:
				return labels[i+1]
			}
		}
	}
	return "us-east-1"
}

func awsQuery(q url.Values) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(q)) {
		for _, v := range slices.Sorted(slices.Values(q[k])) {
			parts = append(parts, awsEscape(k, false)+"="+awsEscape(v, false))
		}
	}
	return strings.Join(parts, "&")
}

// awsEscape escapes everything but unreserved characters, and slashes in paths.
func awsEscape(s string, path bool) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~", c) >= 0, path && c == '/':
			b.WriteByte(c)
		default:
			b.WriteString("%" + strings.ToUpper(hex.EncodeToString([]byte{c})))
		}
	}
	return b.String()
}

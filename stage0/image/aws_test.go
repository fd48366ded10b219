package image

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/stage0/config"
)

// The requests and signatures are the examples of Amazon's documentation of
// Signature Version 4 for S3.
//
// check list: 26
func TestSignAWS(t *testing.T) {
	secret := config.AWSSecret{AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
	at := time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct{ url, rng, names, signature string }{
		{"https://examplebucket.s3.amazonaws.com/test.txt", "bytes=0-9", "host;range;x-amz-content-sha256;x-amz-date", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
		{"https://examplebucket.s3.amazonaws.com/?lifecycle", "", "host;x-amz-content-sha256;x-amz-date", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
		{"https://examplebucket.s3.amazonaws.com?max-keys=2&prefix=J", "", "host;x-amz-content-sha256;x-amz-date", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.rng != "" {
			req.Header.Set("Range", c.rng)
		}
		signAWS(req, secret, at)
		want := "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=" + c.names + ",Signature=" + c.signature
		if got := req.Header.Get("Authorization"); got != want {
			t.Errorf("%s:\n%s\n%s", c.url, got, want)
		}
	}
}

func TestAWSRegion(t *testing.T) {
	for host, want := range map[string]string{
		"s3-eu-west-1.amazonaws.com": "eu-west-1", "b.s3-us-west-2.amazonaws.com": "us-west-2", "b.s3.eu-central-1.amazonaws.com": "eu-central-1",
		"s3.amazonaws.com": "us-east-1", "b.s3.amazonaws.com": "us-east-1", "s3-accelerate.amazonaws.com": "us-east-1", "s3.eu-west-1.example.com": "us-east-1",
	} {
		if got := awsRegion(host); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
	if got := awsEscape("a b/ü~+", true); got != "a%20b/%C3%BC~%2B" {
		t.Error(got)
	}
	if got := awsQuery(map[string][]string{"a-b": {"1"}, "a": {"2", "1"}}); !strings.HasPrefix(got, "a=1&a=2&a-b=1") {
		t.Error(got)
	}
}

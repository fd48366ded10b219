package discovery

import (
	"errors"
	"io"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// tag is a meta tag of discovery: content="PREFIX VALUE".
type tag struct {
	name, prefix, value string
}

// parsePage reads the discovery tags of a page's head. What users write into a
// page is in its body, where tags do not count.
func parsePage(r io.Reader) ([]tag, error) {
	z := html.NewTokenizer(r)
	// A token is no larger than the page, whose reader is limited.
	var tags []tag
	for {
		switch z.Next() {
		case html.ErrorToken:
			if err := z.Err(); !errors.Is(err, io.EOF) {
				return nil, err
			}
			return tags, nil
		case html.StartTagToken, html.SelfClosingTagToken:
			switch name, more := z.TagName(); atom.Lookup(name) {
			case atom.Body:
				return tags, nil
			case atom.Meta:
				if t, ok := metaTag(z, more); ok && len(tags) < 2*maxTags {
					tags = append(tags, t)
				}
			}
		case html.EndTagToken:
			if name, _ := z.TagName(); atom.Lookup(name) == atom.Head {
				return tags, nil
			}
		}
	}
}

func metaTag(z *html.Tokenizer, more bool) (tag, bool) {
	var name, content string
	for more {
		var k, v []byte
		k, v, more = z.TagAttr()
		switch string(k) {
		case "name":
			name = strings.ToLower(strings.TrimSpace(string(v)))
		case "content":
			content = string(v)
		}
	}
	fields := strings.Fields(content)
	if name != "ac-discovery" && name != "ac-discovery-pubkeys" || len(fields) != 2 {
		return tag{}, false
	}
	return tag{name, fields[0], fields[1]}, true
}

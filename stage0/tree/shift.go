package tree

import (
	"encoding/binary"
)

// meta is the metadata of a copy of e.
func (c *copier) meta(e entry) (meta, error) {
	m, err := entryMeta(e)
	if err != nil || c.count == 0 {
		return m, err
	}
	m.uid, m.gid = c.id(m.uid), c.id(m.gid)
	for name, value := range m.xattrs {
		m.xattrs[name] = c.xattr(name, value)
	}
	return m, nil
}

// id is where an id of the image lies on the host.
func (c *copier) id(id uint32) uint32 {
	if id >= c.count {
		id = min(c.count-1, 65534) // nobody
	}
	return c.shift + id
}

// Attributes with ids in them, in the form of setxattr(2): all little endian.
const (
	capXattr = "security.capability"
	// a header word, two words for each of two sets
	capV2Len = 20
	capV2    = 0x02000000
	capV3    = 0x03000000
	capFlags = 0xff000000
	// tag, permissions, id, after a word with the version
	aclHeader, aclEntry = 4, 8
	aclUser, aclGroup   = 2, 8
)

// xattr shifts the ids in an extended attribute. Capabilities of a file hold
// in the initial user namespace unless they name the root of another.
func (c *copier) xattr(name, value string) string {
	b := []byte(value)
	le := binary.LittleEndian
	switch {
	case name == capXattr && len(b) == capV2Len && le.Uint32(b)&capFlags == capV2:
		le.PutUint32(b, le.Uint32(b)&^capFlags|capV3)
		b = le.AppendUint32(b, c.id(0))
	case name == capXattr && len(b) == capV2Len+4 && le.Uint32(b)&capFlags == capV3:
		le.PutUint32(b[capV2Len:], c.id(le.Uint32(b[capV2Len:])))
	case name == "system.posix_acl_access" || name == "system.posix_acl_default":
		for i := aclHeader; i+aclEntry <= len(b); i += aclEntry {
			if tag := le.Uint16(b[i:]); tag == aclUser || tag == aclGroup {
				le.PutUint32(b[i+4:], c.id(le.Uint32(b[i+4:])))
			}
		}
	}
	return string(b)
}

package tree

import "github.com/rkt-systemd/rkt/internal/sys"

// maxOpenDirs bounds the open directories; a path is at most half as deep as
// it is long, and the deepest one's ancestors must all fit.
const maxOpenDirs = 256

// dirCache keeps directories open between the entries of an archive, which
// usually come directory by directory.
type dirCache struct {
	fds   map[string]int
	order []string // oldest first
	limit int      // when to look for old ones again
}

func newDirCache() *dirCache { return &dirCache{fds: map[string]int{}, limit: maxOpenDirs} }

func (c *dirCache) get(rel string) (int, bool) {
	fd, ok := c.fds[rel]
	return fd, ok
}

// put keeps an open directory, closing old ones that are not above it.
func (c *dirCache) put(rel string, fd int) {
	if len(c.fds) >= c.limit {
		kept := c.order[:0]
		for i, old := range c.order {
			if (i < maxOpenDirs/2 || i < len(c.order)-maxOpenDirs/2) && !isBelow(rel, old) {
				sys.Close(c.fds[old])
				delete(c.fds, old)
				continue
			}
			kept = append(kept, old)
		}
		c.order = kept
		c.limit = max(maxOpenDirs, len(kept)+maxOpenDirs/2) // all above a deep one stay
	}
	c.fds[rel] = fd
	c.order = append(c.order, rel)
}

// drop forgets a directory and all below it; "" is everything.
func (c *dirCache) drop(rel string) {
	kept := c.order[:0]
	for _, p := range c.order {
		if rel == "" || p == rel || isBelow(p, rel) {
			sys.Close(c.fds[p])
			delete(c.fds, p)
			continue
		}
		kept = append(kept, p)
	}
	c.order = kept
}

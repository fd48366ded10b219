// Package rootfs holds the files of the stage1 image that are text: units,
// users, the pod's bus. mkstage1 packs them.
package rootfs

import "embed"

// Files is the tree; names are paths in the image's root.
//
//go:embed etc rkt
var Files embed.FS

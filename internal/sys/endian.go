package sys

import "encoding/binary"

// nativeBig says whether this machine stores the most significant byte first.
func nativeBig() bool { return binary.NativeEndian.Uint16([]byte{0, 1}) == 1 }

package keystore

import (
	"bytes"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/rkt-systemd/rkt/internal/acitest"
)

func detachSign(w io.Writer, k *acitest.Key, data []byte, c *packet.Config) error {
	return openpgp.DetachSign(w, k.Entity, bytes.NewReader(data), c)
}

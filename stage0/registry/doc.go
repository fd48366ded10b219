// Package registry fetches images from registries: the distribution protocol
// of OCI and Docker with its tokens, mirrors, retries and resumed downloads,
// credentials from configuration, auth files and helpers, and signatures made
// by cosign with a key.
//
// Registries are hostile until a digest or a signature says otherwise.
// Invariants:
//   - a document is handed on only if its bytes have the digest that was asked
//     for, and, if the registry names a digest, that one too; sizes, counts,
//     depth and time are limited;
//   - credentials go to the registry they are configured for and to the token
//     server that this registry names, over https (over http only where the
//     operator allowed it), and never follow a redirect to another host;
//   - plain http and unchecked certificates are used only where the operator
//     said so; a loopback address is no exception;
//   - layers are passed on as they come: whoever reads compares the digest.
//
// Exported:
//
//	Client{Config, InsecureTLS, InsecureHTTP, AuthFiles, Timeouts, MaxRetries …}
//	(*Client) Open(ref oci.Reference) (*Repository, error); CloseIdle()
//	(*Repository) Image, Blob, Close: an oci.Source
//	(*Repository) Head(ctx) (digest string, error): what the tag means now
//	(*Repository) Verify(ctx, *oci.Image, keys) (Signer, error)
//	VerifySignature(ctx, *Repository, ref, digest, keys) (Signer, error)
//	Key{Fingerprint, Public, Source}; ParseKey(pem []byte) (Key, error)
//	AuthFiles(getenv) []string: where containers' and Docker's logins lie
//	ErrNotFound, ErrUnauthorized, ErrUnsigned, *StatusError, *SignatureError
//
// stage0/image and stage0/cli may import it.
package registry

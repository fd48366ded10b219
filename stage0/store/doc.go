// Package store keeps images on disk by content: plain (uncompressed) ACI tars
// named by the first 256 bits of their SHA-512, their manifests as the image
// carried them, and one small JSON record per image and per remote source.
//
// It knows nothing of pods, trees or the network. Every file appears by rename
// after an fsync, the record last: an image without a record does not exist,
// and every record can be rebuilt from its blob. Reading takes no global lock.
//
// Layout below the store's directory (<data>/cas):
//
//	blob/sha512/XX/KEY            plain ACI tar
//	imageManifest/sha512/XX/KEY   image manifest, original bytes
//	records/images/KEY.json       Record
//	records/remotes/HASH.json     Remote; HASH is of the source's text
//	records/names/HASH/KEY        index: the images of a name; the record decides
//	imagelocks/KEY                flock: shared to read, exclusive to import and remove
//	tmp/                          partial files; a locked one is in use
//
// Exported:
//
//	Open(dir string, o Options) (*Store, error)
//	(*Store) Import(ctx, r io.Reader, o ImportOptions) (Record, error)
//	(*Store) Record(key) (Record, error)          ErrNotFound
//	(*Store) Records() ([]Record, error)          good ones; the error joins the bad ones
//	(*Store) Find(name, labels), FindFunc(name, labels, ok) (Record, error)   best match; ErrNotFound
//	(*Store) Named(name) ([]Record, error); (Record) Matches(labels)
//	(*Store) Resolve(hash string) (Record, error) prefix; ErrShortID, ErrNotFound, *AmbiguousError
//	(*Store) Manifest(key), ManifestBytes(key), ReadBlob(key), Lock(key, mode)
//	(*Store) Touch(key), SetTreeSize(key, n), SetAdmission(key, a), Remove(key)
//	(*Store) Remote(source), PutRemote(r), TempFor(source), TempDir(), Rebuild(ctx), Clean(ctx, age)
//	Detect(head) (Format, error); Decompress(r) (io.ReadCloser, Format, error); CleanName(name)
//
// stage0/tree, stage0/image, stage0/prepare and stage0/cli may import it.
package store

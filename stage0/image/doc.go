// Package image finds images, fetches and verifies them: given a reference it
// yields an image whose verified bytes are in the store. It is the only part of
// rkt that speaks HTTP for images.
//
// Invariants: a hash never causes a network request; nothing becomes visible in
// the store before its signature, name and labels were checked; an image that
// was admitted unsigned is never taken as verified later.
//
// Exported:
//
//	ParseRef(text string) (Ref, error); ParseStored(text) (Ref, error)   hash or name only
//	(Ref) String()                                                      canonical text
//	ParseInsecure(list string) (Insecure, error); (Insecure) Has(bits), String()
//	ParsePullPolicy(word string) (PullPolicy, error)
//	Fetcher{Store, Keys, Config, Insecure, Policy, TrustKeysFromHTTPS, Progress, Log …}
//	(*Fetcher) Fetch(ctx, ref Ref, o FetchOptions{Signature}) (Image, error)
//	(*Fetcher) Lookup(ref Ref) (Image, error)        store only, labels as given
//	(*Fetcher) FindStage1(ctx, o Stage1Options{Path, URL, Name, Hash, FromDir}) (Image, error)
//	Image{Key, ID, Name, Labels, Manifest, Record}
//	*SignatureError (with Hint()), *UnsupportedError, *NotStoredError, *StatusError
//	(*Fetcher) DiscoverKeys(ctx, name, plain), DownloadKey(ctx, found, url, plain)
//	KeyQuestion, *KeyTrustError (with Hint()), *PinError
//	Progress{Begin}, Transfer{Add, Done}; NewProgress(w, terminal, notifySocket) Progress
//	LogWriter(p, w) io.Writer; Size(n) string
//
// stage0/prepare and stage0/cli may import it.
package image

// Package msgid holds the MESSAGE_IDs of what is said about pod files. The
// catalog journal/rkt.catalog explains them; `journalctl -x` shows it. It imports
// nothing, so that the generator can link it.
package msgid

const (
	// PodFileError is an error in a pod file: the pod cannot be started.
	PodFileError = "8c2d8e0b5f914f6fae1c6a6c2f0d7b35"
	// PodFileWarning is something odd in a pod file.
	PodFileWarning = "1f7b6b1b6f4f4f3b9a43f0a35c9a4d8e"
	// PodNotGenerated is a pod whose units could not be written, or a file that
	// cannot be a pod's.
	PodNotGenerated = "e4a9c0d4d5c14c6c8f6f4e1d0b7a2c91"
	// PodCredential is a credential that was not there when the pod started.
	PodCredential = "b6d1f0c48e7a4b5a9d3c2f617e80a4d2"
)

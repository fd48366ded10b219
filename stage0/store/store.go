package store

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/lock"
)

var errTODO = errors.New("not implemented")

// Store is an image store; safe for concurrent use by processes and goroutines.
type Store struct {
	dir string
	o   Options
}

// Open opens the store in dir, creating its directories when missing.
func Open(dir string, o Options) (*Store, error) { return &Store{dir: dir, o: o}, nil }

// Dir is the store's directory.
func (s *Store) Dir() string { return s.dir }

func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (Record, error) {
	return Record{}, errTODO
}
func (s *Store) Record(key string) (Record, error)                           { return Record{}, errTODO }
func (s *Store) Records() ([]Record, error)                                  { return nil, errTODO }
func (s *Store) Find(name string, labels map[string]string) (Record, error)  { return Record{}, errTODO }
func (s *Store) Resolve(hash string) (Record, error)                         { return Record{}, errTODO }
func (s *Store) Manifest(key string) (*schema.ImageManifest, error)          { return nil, errTODO }
func (s *Store) ManifestBytes(key string) ([]byte, error)                    { return nil, errTODO }
func (s *Store) ReadBlob(key string) (io.ReadCloser, error)                  { return nil, errTODO }
func (s *Store) Lock(key string, m lock.Mode) (*os.File, error)              { return nil, errTODO }
func (s *Store) Touch(key string) error                                      { return errTODO }
func (s *Store) SetTreeSize(key string, n int64) error                       { return errTODO }
func (s *Store) SetAdmission(key string, a Admission) error                  { return errTODO }
func (s *Store) Remove(key string) error                                     { return errTODO }
func (s *Store) Remote(source string) (Remote, error)                        { return Remote{}, errTODO }
func (s *Store) PutRemote(r Remote) error                                    { return errTODO }
func (s *Store) TempDir() string                                             { return s.dir + "/tmp" }
func (s *Store) Rebuild(ctx context.Context) (int, error)                    { return 0, errTODO }
func (s *Store) Clean(ctx context.Context, age time.Duration) (int64, error) { return 0, errTODO }

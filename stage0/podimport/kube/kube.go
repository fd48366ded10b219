package kube

import "github.com/rkt-systemd/rkt/stage0/podimport"

type Options struct{ Name string }

func Convert(s []podimport.Source, o Options) (*podimport.Result, error) {
	return &podimport.Result{}, nil
}

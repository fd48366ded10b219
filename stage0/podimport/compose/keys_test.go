package compose

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/rkt-systemd/rkt/stage0/podimport"
)

// TestAllKeys: every key that compose-go knows of a service has somebody who
// carries it over or says why not, and no other has.
func TestAllKeys(t *testing.T) {
	s := &service{unit: &unit{}, conf: &types.ServiceConfig{}}
	handlers := s.handlers()
	for _, f := range fields(reflect.TypeOf(types.ServiceConfig{})) {
		if _, ok := handlers[f.key]; !ok {
			t.Errorf("the key %q is neither mapped nor noted", f.key)
		}
		delete(handlers, f.key)
	}
	for key := range handlers {
		t.Errorf("compose has no key %q", key)
	}
}

// leaf is a place in the configuration of a service.
type leaf struct {
	path string
	set  func(s *types.ServiceConfig, p *types.Project)
}

// TestNothingSilently sets one thing of a service after the other, each with a
// value that it may have, and looks whether the pods or the report differ.
func TestNothingSilently(t *testing.T) {
	base := func() *types.Project {
		return &types.Project{Name: "shop", Services: types.Services{
			"a": {Name: "a", ContainerSpec: types.ContainerSpec{Image: "a:1", Networks: map[string]*types.ServiceNetworkConfig{"default": nil}}},
			"b": {Name: "b", ContainerSpec: types.ContainerSpec{Image: "b:1", Volumes: []types.ServiceVolumeConfig{{Type: "bind", Source: "/b", Target: "/b"}}, Networks: map[string]*types.ServiceNetworkConfig{"default": nil}}},
		}, Networks: types.Networks{"default": {Name: "shop_default"}}, Volumes: types.Volumes{"v": {Name: "shop_v"}},
			Configs: types.Configs{"c": {Content: "x"}}, Secrets: types.Secrets{"s": {File: "/s"}}}
	}
	result := func(p *types.Project) string {
		t.Helper()
		in, err := newInput([]podimport.Source{{Path: "/nowhere/shop/compose.yaml"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := convert(in, p)
		if err != nil {
			return "error: " + err.Error()
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	same := result(base())
	// what has no meaning of its own, or the one that it has without
	nothing := map[string]bool{"name": true, "profiles": true, "extends.file": true, "extends.service": true, "provider.options": true,
		"depends_on.required": true, "volumes.bind.create_host_path": true, "networks.use_service_name_alias": true}
	seen := 0
	for _, l := range leaves() {
		if nothing[l.path] {
			continue
		}
		seen++
		p := base()
		s := p.Services["a"]
		l.set(&s, p)
		p.Services["a"] = s
		if got := result(p); got == same {
			t.Errorf("%s is dropped silently", l.path)
		} else if strings.HasPrefix(got, "error: ") && !strings.Contains(l.path, "provider") {
			t.Errorf("%s: %s", l.path, got)
		}
	}
	if seen < 150 {
		t.Errorf("only %d things were set", seen)
	}
}

// TestNothingSilentlyOfTheProject does the same with networks, volumes, configs
// and secrets.
func TestNothingSilentlyOfTheProject(t *testing.T) {
	base := func() *types.Project {
		return &types.Project{Name: "shop", Services: types.Services{"a": {Name: "a", ContainerSpec: types.ContainerSpec{Image: "a:1",
			Networks: map[string]*types.ServiceNetworkConfig{"default": nil}, Volumes: []types.ServiceVolumeConfig{{Type: "volume", Source: "v", Target: "/v"}},
			Configs: []types.ServiceConfigObjConfig{{Source: "c"}}, Secrets: []types.ServiceSecretConfig{{Source: "s"}}}}},
			Networks: types.Networks{"default": {Name: "shop_default"}}, Volumes: types.Volumes{"v": {Name: "shop_v"}},
			Configs: types.Configs{"c": {File: "/c"}}, Secrets: types.Secrets{"s": {File: "/s"}}}
	}
	result := func(p *types.Project) string {
		t.Helper()
		in, err := newInput([]podimport.Source{{Path: "/nowhere/shop/compose.yaml"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := convert(in, p)
		if err != nil {
			return "error: " + err.Error()
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	same := result(base())
	try := func(path string, p *types.Project) {
		t.Helper()
		switch got := result(p); {
		case got == same:
			t.Errorf("%s is dropped silently", path)
		case strings.HasPrefix(got, "error: "):
			t.Errorf("%s: %s", path, got)
		}
	}
	walk(reflect.TypeOf(types.NetworkConfig{}), "network", func(path string, v reflect.Value) {
		p := base()
		n := v.Interface().(types.NetworkConfig)
		if n.Name == "" {
			n.Name = "shop_default"
		}
		if n.EnableIPv4 != nil {
			*n.EnableIPv4 = false
		}
		for _, pool := range n.Ipam.Config {
			pool.Subnet = "10.3.0.0/24"
			if pool.Gateway != "" {
				pool.Gateway = "10.3.0.9"
			}
			if pool.IPRange != "" {
				pool.IPRange = "10.3.0.128/25"
			}
		}
		p.Networks["default"] = n
		try(path, p)
	})
	walk(reflect.TypeOf(types.VolumeConfig{}), "volume", func(path string, v reflect.Value) {
		p := base()
		n := v.Interface().(types.VolumeConfig)
		if n.Name == "" {
			n.Name = "shop_v"
		}
		p.Volumes["v"] = n
		try(path, p)
	})
	walk(reflect.TypeOf(types.FileObjectConfig{}), "object", func(path string, v reflect.Value) {
		f := v.Interface().(types.FileObjectConfig)
		if path == "object.name" || path == "object.file" {
			return // the name is that of a swarm's object
		}
		if path != "object.content" && path != "object.environment" && path != "object.external" {
			f.File = "/c"
		}
		p := base()
		p.Configs["c"] = types.ConfigObjConfig(f)
		try("config "+path, p)
		if path == "object.content" {
			return // compose-go has it there for secrets of the environment
		}
		p = base()
		if f.File != "" {
			f.File = "/s"
		}
		p.Secrets["s"] = types.SecretConfig(f)
		try("secret "+path, p)
	})
}

// leaves are the things that can be set, found by reflection.
func leaves() []leaf {
	var out []leaf
	for _, f := range fields(reflect.TypeOf(types.ServiceConfig{})) {
		typ := reflect.TypeOf(types.ServiceConfig{}).FieldByIndex(f.index).Type
		walk(typ, f.key, func(path string, v reflect.Value) {
			out = append(out, leaf{path, func(s *types.ServiceConfig, p *types.Project) {
				reflect.ValueOf(s).Elem().FieldByIndex(f.index).Set(v)
				fit(s, path)
			}})
		})
	}
	return out
}

// walk calls do with values of a type in which one thing is set.
func walk(typ reflect.Type, path string, do func(string, reflect.Value)) {
	switch typ.Kind() {
	case reflect.Pointer:
		walk(typ.Elem(), path, func(at string, v reflect.Value) {
			p := reflect.New(typ.Elem())
			p.Elem().Set(v)
			do(at, p)
		})
	case reflect.Struct:
		if strings.Contains(path, "pre_start") || strings.Contains(path, "build") {
			v := reflect.New(typ).Elem()
			do(path, v)
			return
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if name == "" {
				name = strings.ToLower(f.Name)
			}
			if strings.HasPrefix(name, "#") || name == "-" || f.Name == "Extensions" || !f.IsExported() {
				continue
			}
			walk(f.Type, path+"."+name, func(at string, fv reflect.Value) {
				v := reflect.New(typ).Elem()
				v.Field(i).Set(fv)
				do(at, v)
			})
		}
	case reflect.Slice:
		walk(typ.Elem(), path, func(at string, ev reflect.Value) {
			v := reflect.MakeSlice(typ, 1, 1)
			v.Index(0).Set(ev)
			do(at, v)
		})
	case reflect.Map:
		walk(typ.Elem(), path, func(at string, ev reflect.Value) {
			key := reflect.New(typ.Key()).Elem()
			key.SetString(map[string]string{"depends_on": "b", "networks": "default", "ulimits": "nofile", "sysctls": "net.core.somaxconn"}[strings.Split(path, ".")[0]])
			if key.String() == "" {
				key.SetString("k")
			}
			v := reflect.MakeMap(typ)
			v.SetMapIndex(key, ev)
			do(at, v)
		})
	default:
		v := reflect.New(typ).Elem()
		switch typ.Kind() {
		case reflect.String:
			v.SetString(word(path))
		case reflect.Bool:
			v.SetBool(true)
		case reflect.Float32, reflect.Float64:
			v.SetFloat(2)
		case reflect.Interface:
			return
		default:
			if v.CanInt() {
				v.SetInt(7)
			} else {
				v.SetUint(7)
			}
		}
		do(path, v)
	}
}

// word is a text that a key can have.
func word(path string) string {
	if w, ok := map[string]string{
		"image": "other:2", "user": "7", "working_dir": "/w", "restart": "always", "tmpfs": "/t", "extra_hosts": "192.0.2.1", "dns": "192.0.2.2", "dns_search": "example.com",
		"dns_opt": "rotate", "stop_signal": "SIGINT", "links": "b:c", "ipc": "host", "userns_mode": "host", "network_mode": "host", "cpuset": "0", "cap_add": "SYS_PTRACE",
		"cap_drop": "CHOWN", "security_opt": "no-new-privileges", "cgroup_parent": "x.slice", "mac_address": "02:00:00:00:00:01", "networks.ipv4_address": "",
		"networks.mac_address": "02:00:00:00:00:01", "volumes_from": "b", "configs.source": "c", "secrets.source": "s", "expose": "7", "ports.published": "7", "ports.host_ip": "127.0.0.1",
		"ports.protocol": "udp", "ports.name": "seven", "ports.mode": "host", "env_file.path": "/e", "volumes.source": "/s", "volumes.target": "/t", "volumes.type": "tmpfs",
		"devices.source": "/dev/x", "pull_policy": "always", "deploy.restart_policy.condition": "any", "depends_on.condition": "service_healthy",
		"configs.target": "/c", "secrets.target": "/x", "healthcheck.test": "CMD", "group_add": "7", "blkio_config.device_read_bps.path": "/dev/x",
	}[path]; ok && w != "" {
		return w
	}
	return "word"
}

// fit completes what is no configuration with one thing alone.
func fit(s *types.ServiceConfig, path string) {
	if s.NetworkMode != "" {
		s.Networks = nil
	}
	for _, n := range s.Networks {
		if n != nil && n.Ipv4Address == "word" {
			n.Ipv4Address = anAddress()
		}
	}
	for i := range s.Volumes {
		v := &s.Volumes[i]
		v.Target = "/t"
		switch {
		case strings.HasPrefix(path, "volumes.volume") || path == "volumes.read_only":
			v.Type, v.Source = "volume", "v"
		case strings.HasPrefix(path, "volumes.tmpfs"):
			v.Type = "tmpfs"
		case strings.HasPrefix(path, "volumes.image"):
			v.Type = "image"
		case v.Type == "":
			v.Type = "bind"
			if v.Source == "" {
				v.Source = "/s"
			}
		}
	}
	for i := range s.Ports {
		if s.Ports[i].Target == 0 {
			s.Ports[i].Target = 80
		}
	}
	for i := range s.Configs {
		s.Configs[i].Source = "c"
	}
	for i := range s.Secrets {
		s.Secrets[i].Source = "s"
	}
	for i := range s.Devices {
		s.Devices[i].Source = "/dev/x"
	}
	for i := range s.EnvFiles {
		s.EnvFiles[i].Path = "/e"
	}
	if b := s.BlkioConfig; b != nil {
		for _, list := range [][]types.ThrottleDevice{b.DeviceReadBps, b.DeviceReadIOps, b.DeviceWriteBps, b.DeviceWriteIOps} {
			for i := range list {
				list[i].Path = "/dev/x"
			}
		}
	}
	if h := s.HealthCheck; h != nil && len(h.Test) > 0 {
		h.Test = types.HealthCheckTest{"CMD", "true"}
	}
	if d := s.Deploy; d != nil && d.Replicas != nil {
		two := 2
		d.Replicas = &two
	}
	if s.Scale != nil {
		two := 2
		s.Scale = &two
	}
}

// anAddress is an address of the network shop_default.
func anAddress() string {
	v4, _ := podimport.Subnet("shop_default")
	return strings.Replace(v4, ".0/24", ".77", 1)
}

// TestNotesSayWhat: a note names a key, and says something.
func TestNotesSayWhat(t *testing.T) {
	r, err := convertText(t, "services: {a: {image: a, shm_size: 1m, gpus: all, deploy: {mode: global}}}")
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(r.Notes)
	for _, want := range []string{"services.a.shm_size", "services.a.gpus", "services.a.deploy.mode"} {
		if !strings.Contains(text, want) {
			t.Errorf("no note for %s in %s", want, text)
		}
	}
	for _, n := range r.Notes {
		if n.Key == "" || n.Text == "" || n.Path == "" {
			t.Errorf("an empty note: %+v", n)
		}
	}
}

package natsserver

import (
	"errors"
	"net"
	"slices"
	"strings"

	"github.com/nats-io/nats-server/v2/conf"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/microwall/microwall/policy"
)

// parse reads settings, and refuses those that this package does not vouch for.
func parse(settings []byte) (*server.Options, error) {
	o := &server.Options{}
	if len(settings) == 0 {
		return o, nil
	}
	if err := checkIncludes(settings); err != nil {
		return nil, err
	}
	if err := o.ProcessConfigString(string(settings)); err != nil {
		// What it returns may hold nothing but warnings.
		found, ok := errors.AsType[interface {
			error
			Errors() []error
		}](err)
		if !ok || len(found.Errors()) > 0 {
			return nil, unusable(err)
		}
	}
	var more []string
	for name, set := range map[string]bool{
		"cluster":        o.Cluster.Port != 0 || o.Cluster.Name != "" || len(o.Routes) > 0,
		"gateway":        o.Gateway.Port != 0 || o.Gateway.Name != "",
		"leafnodes":      o.LeafNode.Port != 0 || len(o.LeafNode.Remotes) > 0,
		"websocket":      o.Websocket.Port != 0,
		"mqtt":           o.MQTT.Port != 0,
		"http":           o.HTTPPort != 0 || o.HTTPSPort != 0,
		"prof_port":      o.ProfPort != 0,
		"operator":       len(o.TrustedOperators) > 0 || len(o.TrustedKeys) > 0,
		"pid_file":       o.PidFile != "",
		"ports_file_dir": o.PortsFileDir != "",
		"log_file":       o.LogFile != "",
		"syslog":         o.Syslog || o.RemoteSyslog != "",
	} {
		if set {
			more = append(more, name)
		}
	}
	if len(more) > 0 {
		slices.Sort(more)
		return nil, policy.Errorf(policy.BadRequest, "the NATS server inside this process takes no %s: it is one server, for clients; take that out, or run nats-server by that file", strings.Join(more, ", "))
	}
	return o, nil
}

// options are what nats-server is started with, if it may be.
func (c Config) options() (*server.Options, error) {
	o, err := parse(c.Settings)
	if err != nil {
		return nil, err
	}
	if err := checkReach(c.Host, o); err != nil {
		return nil, err
	}
	o.Host = c.Host
	o.Port = c.Port
	o.JetStream = true
	o.StoreDir = c.StoreDir
	o.JetStreamMaxMemory = maxMemory
	o.JetStreamMaxStore = c.MaxBytes
	o.SyncAlways = true
	o.NoSigs = true
	// It would keep what each connection asked for, which is seldom the same: two
	// kilobytes for each.
	o.NoSublistCache = true
	return o, nil
}

// Reload puts other settings in force, or the same ones with what their files
// hold now: who is not known any more is cut off, others stay connected, and
// the next handshakes use the renewed certificate. The address stays. After an
// error, which is of kind policy.BadRequest, what was in force is. It may be
// called at any time until Shutdown.
func (s *Server) Reload(settings []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.config
	c.Settings = settings
	o, err := c.options()
	if err != nil {
		return err
	}
	if err := s.newest.Load().ReloadOptions(o); err != nil {
		return policy.Errorf(policy.BadRequest, "the NATS server cannot change to these settings while it runs: %w; start it again", err)
	}
	s.config.Settings = settings
	return nil
}

// Files returns the files that settings name for TLS, which may be renewed: none
// if they name none or cannot be read.
func Files(settings []byte) (names []string) {
	if checkIncludes(settings) != nil {
		return nil
	}
	all, err := conf.Parse(string(settings))
	if err != nil {
		return nil
	}
	block, _ := all["tls"].(map[string]any)
	for _, key := range []string{"cert_file", "key_file", "ca_file"} {
		if name, ok := block[key].(string); ok {
			names = append(names, name)
		}
	}
	return names
}

// checkReach refuses a server that other machines reach, unless it has TLS and
// knows everybody who connects.
func checkReach(host string, o *server.Options) error {
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	var lacks string
	switch {
	case o.TLSConfig == nil || o.AllowNonTLS:
		lacks = "it speaks plaintext"
	case len(o.Nkeys)+len(o.Users) == 0:
		lacks = "it lets everybody in"
	case !o.TLSMap && slices.ContainsFunc(o.Users, func(u *server.User) bool { return u.Password == "" }):
		lacks = "it has a user without a password"
	case o.NoAuthUser != "":
		lacks = "it lets in whoever shows no credentials (no_auth_user)"
	default:
		return nil
	}
	return policy.Errorf(policy.BadRequest, "the NATS server is to listen on %s, which other machines reach, but %s; keep it on 127.0.0.1, or give it TLS and users: `microwall nats-config` prints such settings", host, lacks)
}

package conf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Options are what reading a file needs from outside. The zero value uses the
// system's resolver and environment.
type Options struct {
	// Lookup resolves a host name. Nil: the system's resolver, at most 5 s a name.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Getenv gives the value of ${NAME}. Nil: the environment.
	Getenv func(name string) (string, bool)
	// Override are options that take the place of what the file says.
	Override []Setting
}

// Secret is a password. It prints as a placeholder, so that it cannot end up
// in a log by accident.
type Secret string

// String never shows the secret.
func (Secret) String() string { return "(secret)" }

// GoString never shows the secret.
func (Secret) GoString() string { return "(secret)" }

// LogValue never shows the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }

// MarshalText never shows the secret.
func (Secret) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }

// Key is a shared key as the files give it.
type Key struct {
	ID     uint8 // key-id, 0 if not given
	Type   int   // 1 HMAC-SHA-1-96, 2 HMAC-SHA-256-128, 3 HMAC-SHA-256-128 with HKDF-SHA-256
	Secret Secret
}

// reader turns a checked tree into a typed configuration.
type reader struct {
	lookup func(host string) ([]netip.Addr, error)
	getenv func(name string) (string, bool)
	set    []Setting
	probs  *problems
}

// lookupTimeout bounds the resolution of one host name.
const lookupTimeout = 5 * time.Second

func newReader(ctx context.Context, file string, opt Options) *reader {
	lookup := opt.Lookup
	if lookup == nil {
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return &reader{
		lookup: func(host string) ([]netip.Addr, error) {
			limited, cancel := context.WithTimeout(ctx, lookupTimeout)
			defer cancel()
			return lookup(limited, host)
		},
		getenv: opt.Getenv,
		set:    opt.Override,
		probs:  &problems{file: file},
	}
}

// open reads, parses and checks a file's text. who says of a file what it is for. The
// result is nil after a syntax error: what is made of half a file would only confuse.
func (r *reader) open(src string, who func(root *section) role) *group {
	root := parse(src, r.getenv, r.probs)
	half := r.probs.err() != nil
	r.override(root, r.set)
	g := check(root, known, who(root), r.probs)
	if half {
		return nil
	}
	return g
}

// ErrFile is wrapped by errors about a configuration file that cannot be read.
var ErrFile = errors.New("configuration file")

// readFile reads a configuration file, with an error that says what to do.
func readFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("%w %s does not exist (give another one with -f)", ErrFile, path)
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrFile, err)
	case len(b) > 1<<20:
		return "", fmt.Errorf("%w %s has %d octets; more than 1 MiB is not a configuration", ErrFile, path, len(b))
	}
	if !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
		return "", fmt.Errorf("%w %s is not text", ErrFile, path)
	}
	return string(b), nil
}

// addresses turns an address or a host name into addresses.
func (r *reader) addresses(text string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.Unmap()
		if a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
			return nil, fmt.Errorf("'%s' is not the address of a host", text)
		}
		return []netip.Addr{a}, nil
	}
	if !isHostName(text) {
		return nil, fmt.Errorf("'%s' is neither an IP address nor a host name", text)
	}
	found, err := r.lookup(text)
	if err != nil {
		return nil, fmt.Errorf("host name '%s' %w: %w", text, errUnresolved, err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("host name '%s' has no address", text)
	}
	for i, a := range found {
		found[i] = a.Unmap()
	}
	return found, nil
}

var errUnresolved = errors.New("cannot be resolved")

// isHostName reports whether s can be a host name: letters, digits, hyphens
// and dots, with a letter somewhere, so that 192.0.2.300 is not asked for.
func isHostName(s string) bool {
	letter := false
	for _, c := range s {
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			letter = true
		case c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_':
		default:
			return false
		}
	}
	return letter && len(s) <= 253 && !strings.HasPrefix(s, "-") && !strings.HasPrefix(s, ".")
}

// needAddress reads the option address of a section: the first address that
// it stands for, in the order of preference of the resolver.
func (r *reader) needAddress(g *group, option string) (netip.Addr, bool) {
	text, ok := g.need(option)
	if !ok {
		return netip.Addr{}, false
	}
	as, err := r.addresses(text)
	if err != nil {
		g.errorf(option, "%v", err)
		return netip.Addr{}, false
	}
	return as[0], true
}

const notPrefix = "'%s' is not an EID-Prefix such as 192.0.2.1/32 or 2001:db8::1/128"

func parsePrefix(text string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(text)
	if a, errAddr := netip.ParseAddr(text); err != nil && errAddr == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	return p, err == nil && !p.Addr().Is4In6()
}

// needPrefix reads an EID-Prefix. An address alone stands for the host.
func (r *reader) needPrefix(g *group) (netip.Prefix, bool) {
	const option = "eid-prefix"
	text, ok := g.need(option)
	if !ok {
		return netip.Prefix{}, false
	}
	p, ok := parsePrefix(text)
	if !ok {
		g.errorf(option, notPrefix, text)
		return netip.Prefix{}, false
	}
	if p.Masked() != p {
		g.warnf(option, "'%s' has bits behind its length; taken as %s", text, p.Masked())
	}
	return p.Masked(), true
}

// iid reads an Instance ID; -1 stood for none in early files.
func (r *reader) iid(g *group) uint32 { return uint32(max(g.num("iid", 0), 0)) }

// key reads key-type, key and key-id.
func (r *reader) key(g *group) (Key, bool) {
	secret, ok := g.need("key")
	k := Key{ID: uint8(g.num("key-id", 0)), Type: int(g.num("key-type", 1)), Secret: Secret(secret)}
	if g.has("key-type") && g.str("key-type", "") != "" && k.Type == 0 {
		g.errorf("key-type", "registrations without authentication are not supported: "+
			"1 is HMAC-SHA-1-96, 2 HMAC-SHA-256-128, 3 the same with a derived key per message")
		return k, false
	}
	return k, ok
}

// debug reads the level of detail, a number or a bool.
func (r *reader) debug(g *group) int {
	text := g.str("debug", "0")
	if v, ok := parseBool(text); ok {
		if v {
			return 1
		}
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		g.errorf("debug", "'%s' is not a level from 0 to 3", text)
		return 0
	}
	if n > 3 {
		g.warnf("debug", "3 is the highest level")
		n = 3
	}
	return n
}

// LogLevel is the level of detail of the log that a debug level asks for.
func LogLevel(debug int) slog.Level {
	switch {
	case debug <= 0:
		return slog.LevelWarn
	case debug == 1:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

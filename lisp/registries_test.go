package lisp

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// constant is one of this package and the name of it in testdata/registries.tsv.
type constant struct {
	value any
	name  string // empty: what String says
}

// TestRegistries holds the constants against testdata/registries.tsv: the same
// numbers with the same meaning, none missing on either side, and String names
// exactly those.
func TestRegistries(t *testing.T) {
	want := map[string]map[uint64]string{}
	b, err := os.ReadFile("testdata/registries.tsv")
	require.NoError(t, err)
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		require.Len(t, f, 3, line)
		n, err := strconv.ParseUint(f[1], 10, 16)
		require.NoError(t, err)
		if want[f[0]] == nil {
			want[f[0]] = map[uint64]string{}
		}
		require.NotContains(t, want[f[0]], n)
		want[f[0]][n] = f[2]
	}
	ours := map[string][]constant{
		"message-type": {
			{TypeMapRequest, ""},
			{TypeMapReply, ""},
			{TypeMapRegister, ""},
			{TypeMapNotify, ""},
			{TypeMapNotifyAck, ""},
			{TypeMapReferral, ""},
			{TypeInfo, ""},
			{TypeEncapsulatedControl, ""},
			{TypeSharedExtension, ""},
		},
		"address-family": {
			{AFINone, "reserved"},
			{AFIIPv4, "IP version 4"},
			{AFIIPv6, "IP version 6"},
			{AFIMAC, "802"},
			{AFIDistinguishedName, "distinguished name"},
			{AFILCAF, "LCAF"},
			{AFIMAC48, "48-bit MAC"},
		},
		"lcaf": {
			{LCAFNull, ""},
			{LCAFAFIList, ""},
			{LCAFInstanceID, ""},
			{LCAFASNumber, ""},
			{LCAFApplicationData, ""},
			{LCAFGeoCoordinates, ""},
			{LCAFOpaqueKey, ""},
			{LCAFNATTraversal, ""},
			{LCAFNonceLocator, ""},
			{LCAFMulticastInfo, ""},
			{LCAFExplicitPath, ""},
			{LCAFSecurityKey, ""},
			{LCAFSourceDest, ""},
			{LCAFReplicationList, ""},
			{LCAFJSON, ""},
			{LCAFKeyValue, ""},
			{LCAFEncapsulation, ""},
			{LCAFVendorSpecific, ""},
		},
		"algorithm": {
			{AlgorithmNone, ""},
			{AlgorithmHMACSHA1, ""},
			{AlgorithmHMACSHA256, ""},
			{AlgorithmHMACSHA256HKDF, ""},
		},
		"act": {
			{ActionNoAction, ""},
			{ActionNativelyForward, ""},
			{ActionSendMapRequest, ""},
			{ActionDropNoReason, ""},
			{ActionDropPolicyDenied, ""},
			{ActionDropAuthFailure, ""},
		},
		"referral-act": {
			{ReferralNode, ""},
			{ReferralMapServer, ""},
			{ReferralMapServerACK, ""},
			{ReferralNotRegistered, ""},
			{ReferralDelegationHole, ""},
			{ReferralNotAuthoritative, ""},
		},
		"referral-signature": {{SignatureRSASHA1, "RSA-SHA1"}, {SignatureRSASHA256, "RSA-SHA256"}},
		"ad-type":            {{ADTypeLISPSEC, "LISP-SEC"}, {ADTypeRTR, "RTR"}},
		"lisp-sec-hmac":      {{HMACNoPreference, "NOPREF"}, {HMACSHA1, "AUTH-HMAC-SHA-1-96"}, {HMACSHA256, "AUTH-HMAC-SHA-256-128"}},
		"lisp-sec-key-wrap":  {{WrapNull, "NULL-KEY-WRAP-128"}, {WrapAES, "AES-KEY-WRAP-128+HKDF-SHA256"}},
		"lisp-sec-kdf":       {{KDFNoPreference, "NOPREF"}, {KDFHKDFSHA1, "HKDF-SHA1-128"}, {KDFHKDFSHA256, "HKDF-SHA256"}},
		"next-protocol":      {{NextIPv4, ""}, {NextIPv6, ""}, {NextEthernet, ""}, {NextNSH, ""}},
		"udp-port":           {{DataPort, "data"}, {ControlPort, "control"}, {VXLANGPEPort, "VXLAN-GPE"}},
	}
	assert.ElementsMatch(t, slices.Collect(maps.Keys(want)), slices.Collect(maps.Keys(ours)))
	for registry, constants := range ours {
		t.Run(registry, func(t *testing.T) {
			got := map[uint64]string{}
			for _, c := range constants {
				n, err := strconv.ParseUint(fmt.Sprintf("%d", c.value), 10, 16)
				require.NoError(t, err)
				if c.name == "" {
					c.name = c.value.(fmt.Stringer).String()
				}
				got[n] = c.name
			}
			assert.Equal(t, want[registry], got)
		})
	}
	// A number that is not assigned prints as a number.
	for registry, name := range map[string]func(n uint64) string{
		"message-type":  func(n uint64) string { return Type(n).String() },
		"lcaf":          func(n uint64) string { return LCAFType(n).String() },
		"algorithm":     func(n uint64) string { return Algorithm(n).String() },
		"act":           func(n uint64) string { return Action(n).String() },
		"referral-act":  func(n uint64) string { return ReferralAction(n).String() },
		"next-protocol": func(n uint64) string { return NextProtocol(n).String() },
	} {
		for n := range uint64(256) {
			if _, assigned := want[registry][n]; !assigned {
				s := name(n)
				assert.True(t, strings.HasSuffix(s, strconv.FormatUint(n, 10)) || strings.HasSuffix(s, fmt.Sprintf("0x%02x", n)), "%s %d: %s", registry, n, s)
			}
		}
	}
}

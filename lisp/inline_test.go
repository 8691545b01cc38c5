package lisp

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestInlining: what runs for each packet stays cheap enough to be inlined.
func TestInlining(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "build", "-gcflags=-m", ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, name := range []string{
		"ParseDataHeader", "PutDataHeader", "DataHeader.InstanceID", "DataHeader.WithInstanceID", "DataHeader.Nonce",
		"DataHeader.WithNonce", "DataHeader.MapVersions", "DataHeader.WithMapVersions", "DataHeader.LSBs",
		"DataHeader.WithLSBs", "DataHeader.KeyID", "DataHeader.Flags", "DataHeader.NextProtocol",
		"ParseVXLANGPEHeader", "PutVXLANGPEHeader", "VXLANGPEHeader.VNI", "TypeOf",
	} {
		assert.Contains(t, string(out), "can inline "+name+"\n")
	}
}

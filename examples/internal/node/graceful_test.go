package node

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// Who comes back does not withdraw.
func TestWithdrawal(t *testing.T) {
	assert.Negative(t, withdrawal(time.Minute))
	assert.Zero(t, withdrawal(0))
}

package ebpf

import "os"

const envVictim = "XTRKIT_EBPF_VICTIM"

func victim() { os.Exit(1) }

package ebpf

// clang and llvm-strip of LLVM 14 (Debian 12); the objects are checked in, so that
// nobody else needs them. -g is for the maps, which are described in BTF.
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package ebpf -output-stem lisp -tags linux -target bpfel,bpfeb -cc clang-14 -strip llvm-strip-14 -no-global-types -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-variable -Wno-unused-parameter" -type entry -type eid -type prefix -type device -type instance -type set -type member -type locator -type local -type local_list -type address -type few_addresses -type settings -type count -type locator_count bpf bpf/lisp.c

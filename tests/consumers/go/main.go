// A Go program that moves bytes between two engines by cgo and checks them. Without modules: `go build main.go`, with
// CGO_CFLAGS and CGO_LDFLAGS for the header and the library.
package main

/*
#include <stdlib.h>
#include "transfer_engine_ext.h"
*/
import "C"

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"unsafe"
)

const size = 3 << 20

// The words of a failed call are its thread's, and Go may move a goroutine to another thread before they are asked for; so
// what is reported is the code.
func check(what string, holds bool) {
	if !holds {
		fmt.Fprintln(os.Stderr, what, "does not hold")
		os.Exit(1)
	}
}

type engine struct {
	handle C.transfer_engine_t
	memory []byte
	start  unsafe.Pointer
}

func text(s string) *C.char { return C.CString(s) }

// Memory that is transferred is C's: the library keeps its address after the call that registers it.
func newEngine() engine {
	start := C.malloc(size)
	e := engine{C.createTransferEngine(text("P2PHANDSHAKE"), text("127.0.0.1"), text(""), 0, 0), unsafe.Slice((*byte)(start), size), start}
	check("an engine", e.handle != nil)
	check("a transport", C.installTransport(e.handle, text("tcp"), nil) != nil)
	check("a registration", C.registerLocalMemory(e.handle, start, size, text("cpu:0"), 1) == 0)
	return e
}

func (e engine) name() string {
	var buffer [64]C.char
	check("a name", C.getLocalIpAndPort(e.handle, &buffer[0], C.size_t(len(buffer))) == 0)
	return C.GoString(&buffer[0])
}

func (e engine) transfer(opcode C.int, segment C.int32_t, offset, length int, to engine) {
	batch := C.allocateBatchID(e.handle, 1)
	request := C.transfer_request_t{
		source:        unsafe.Add(e.start, offset),
		target_id:     C.int32_t(segment),
		target_offset: C.uint64_t(uintptr(to.start)) + C.uint64_t(offset),
		length:        C.uint64_t(length),
	}
	request.opcode = opcode
	check("a submit", C.submitTransfer(e.handle, batch, &request, 1) == 0)
	check("a wait", C.mte_wait_batch(e.handle, batch, 60000) == 0)
	var status C.transfer_status_t
	check("a status", C.getTransferStatus(e.handle, batch, 0, &status) == 0)
	check("COMPLETED", status.status == C.STATUS_COMPLETED)
	check("a free", C.freeBatchID(e.handle, batch) == 0)
}

func main() {
	from, to := newEngine(), newEngine()
	for i := range from.memory {
		from.memory[i] = byte(i*31+i>>8) | 1
	}
	segment := C.openSegment(from.handle, text(to.name()))
	check("a segment", segment >= 0)
	// By several goroutines at once, so from several threads.
	var all sync.WaitGroup
	const parts = 8
	for part := 0; part < parts; part++ {
		all.Add(1)
		go func(offset int) {
			defer all.Done()
			from.transfer(C.OPCODE_WRITE, C.int32_t(segment), offset, size/parts, to)
		}(part * size / parts)
	}
	all.Wait()
	check("what was written", bytes.Equal(from.memory, to.memory))
	for i := range to.memory {
		to.memory[i] ^= 0xff
	}
	from.transfer(C.OPCODE_READ, C.int32_t(segment), 0, size, to)
	check("what was read", bytes.Equal(from.memory, to.memory))
	C.destroyTransferEngine(from.handle)
	C.destroyTransferEngine(to.handle)
	fmt.Println("moved")
}

// Package export_pawl_worker_handler translates between the contract and the logic in package batches. Its name is the one that
// the generated bindings import.
package export_pawl_worker_handler

import (
	"errors"
	"fmt"

	"delete-batch/batches"
	. "delete-batch/imports/pawl_worker_handler"
	"delete-batch/imports/wasi_config_store"

	wit "go.bytecodealliance.org/pkg/wit/types"
)

// Handle handles the next batch of a message.
func Handle(message Message, progress Progress) wit.Result[Outcome, Failure] {
	settings, err := batches.ReadSettings(readConfig)
	if err != nil {
		// It may be mended while messages wait, so it is a reason to try again.
		return wit.Err[Outcome](MakeFailureTransient(Retry{Reason: err.Error(), AfterMs: wit.None[uint64]()}))
	}
	records, err := recordsOf(message, progress)
	if err != nil {
		return wit.Err[Outcome](MakeFailurePermanent(err.Error()))
	}

	count := records.DeleteNext(settings.Batch, progress.StepKey)
	fmt.Println(records.LogLine(count))

	if records.Remaining() == 0 {
		return wit.Ok[Outcome, Failure](MakeOutcomeDone(nil))
	}
	return wit.Ok[Outcome, Failure](MakeOutcomeAgain(Continuation{
		State:   wit.Some(records.State()),
		DelayMs: settings.DelayMs,
	}))
}

func recordsOf(message Message, progress Progress) (batches.Batches, error) {
	if progress.State.IsSome() {
		return batches.Resume(progress.State.Some())
	}
	if message.Value.IsNone() {
		return batches.Begin(nil)
	}
	// An empty value arrives as nil, which is not the same as no value.
	return batches.Begin(append([]byte{}, message.Value.Some()...))
}

func readConfig(key string) (string, bool, error) {
	result := wasi_config_store.Get(key)
	if result.IsErr() {
		return "", false, errors.New(describe(result.Err()))
	}
	value := result.Ok()
	return value.SomeOr(""), value.IsSome(), nil
}

func describe(err wasi_config_store.Error) string {
	if err.Tag() == wasi_config_store.Error_Upstream {
		return err.Upstream()
	}
	return err.Io()
}

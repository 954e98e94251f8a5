// The sample plugin `delete-batch` as a component: the bindings export what package export_pawl_worker_handler implements.
package main

import _ "delete-batch/exports/wit_exports"

//go:generate wit-bindgen go --quiet --pkg-name delete-batch --world sample:delete-batch/delete-batch --out-dir . wit

// A component has no main function to run, but Go wants one.
func main() {}

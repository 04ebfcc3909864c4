// Package indexcost_test measures what the shared index of a cluster of registry caches
// costs a real Redis: memory for each blob, and the server's processor time for each
// operation, which bounds a cluster because Redis runs commands on one core.
//
//	go test ./integration/indexcost -bench . -run Memory -blobs 1000000 -v
package indexcost_test

// Package crash kills the daemon of writable devices at random moments, with
// requests in flight, and checks that nothing is lost or damaged: see its tests.
package crash

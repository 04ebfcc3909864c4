// Package report sums up what a replay did: histograms of how long requests took,
// by kind, registry, outcome and status, counts over time, and failures by cause. A
// Recorder is told of each result, in constant memory; the Summary that it gives is
// text, JSON or CSV. Summaries merge exactly, for the histograms are in them, whether
// they are of clients of one run or of runs of different days.
package report

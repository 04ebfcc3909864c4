package simulate

// Scatter is scatter, for tests.
var Scatter = scatter

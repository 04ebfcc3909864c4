package inspect

// FileSystemSize is fileSystemSize.
var FileSystemSize = fileSystemSize

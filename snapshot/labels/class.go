package labels

// WritableMode is what takes the writes of a container.
type WritableMode int

const (
	// WritableUnset leaves it to the node.
	WritableUnset WritableMode = iota
	// WritableOverlay puts overlayfs over the read-only image.
	WritableOverlay
	// WritableDir mounts a writable device and binds it.
	WritableDir
	// WritableDevice hands out the writable device itself.
	WritableDevice
)

// ParseWritable reads the value of the label Writable; as upstream, any other word
// is overlayfs.
func ParseWritable(v string) WritableMode {
	switch v {
	case "":
		return WritableUnset
	case "dir":
		return WritableDir
	case "dev":
		return WritableDevice
	}
	return WritableOverlay
}

// Class is what a request to prepare a snapshot is about.
type Class int

const (
	// Root is a container's root file system or a step of an image build:
	// anything that is not a layer being unpacked.
	Root Class = iota
	// Lazy is an overlaybd layer to be read when needed.
	Lazy
	// TraceLayer is a layer that carries a trace; containerd unpacks it.
	TraceLayer
	// LazyTrace is a layer that carries a trace with a plan, to be read when
	// needed.
	LazyTrace
	// DownloadLayer is an overlaybd layer whose blob containerd unpacks, because
	// it was asked to or because the repository isn't known.
	DownloadLayer
	// Unpack is a layer without overlaybd annotations; containerd unpacks it.
	Unpack
	// TurboLayer is a TurboOCI layer, which is not supported.
	TurboLayer
)

// Class classifies a request by its labels alone.
func (l Labels) Class() Class {
	switch {
	case l.Target == "":
		return Root
	case l.Turbo:
		return TurboLayer
	}
	local := l.Download || l.Image == "" || l.Blob == "" || l.BlobSize == 0
	switch {
	case l.Trace && (local || l.Plan.Size == 0):
		return TraceLayer
	case l.Trace:
		return LazyTrace
	case l.Blob == "":
		return Unpack
	case local:
		return DownloadLayer
	}
	return Lazy
}

// String returns the class for messages.
func (c Class) String() string {
	switch c {
	case Root:
		return "root file system"
	case Lazy:
		return "lazy layer"
	case TraceLayer:
		return "trace layer"
	case LazyTrace:
		return "lazy trace layer"
	case DownloadLayer:
		return "downloaded layer"
	case Unpack:
		return "unpacked layer"
	case TurboLayer:
		return "TurboOCI layer"
	}
	return "unknown class"
}
